// Keeping a chat as a training row: the dialog shows its messages to be mended, and a draft to put
// it in. What is kept waits on the page Data.
import { ask, fault as say, fill, number, tell } from "./app.js";

const box = document.getElementById("keep");
const t = JSON.parse(box.dataset.texts);
const where = document.getElementById("keep-where");
const fields = document.getElementById("keep-fields");
const fault = document.getElementById("keep-error");
const LAST = "afina:kept-in";
let roles = [];

/** Opens the dialog with these messages. */
export async function keepRow(messages) {
  roles = messages.map((message) => message.role);
  fields.replaceChildren(...messages.map((message, i) => {
    const field = document.createElement("div");
    field.className = "field";
    const label = document.createElement("label");
    label.textContent = t[`role_${message.role}`] ?? message.role;
    const text = document.createElement("textarea");
    text.id = label.htmlFor = `keep-${i}`;
    text.value = message.content;
    text.rows = Math.min(10, Math.max(2, Math.ceil(message.content.length / 70)));
    field.append(label, text);
    return field;
  }));
  fault.hidden = true;
  const chosen = sessionStorage.getItem(LAST);
  const { drafts } = await (await ask("/playground/rows")).json();
  const options = drafts.map((draft) => new Option(`${draft.name} · ${fill(t.keep_rows, { n: number(draft.rows) })}`, draft.id));
  where.replaceChildren(...options, new Option(t.keep_new, ""));
  where.value = drafts.some((draft) => draft.id === chosen) ? chosen : ""; // never by itself among rows of another kind
  box.showModal();
  fields.lastElementChild.querySelector("textarea").focus();
}

document.getElementById("keep-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const messages = [...fields.querySelectorAll("textarea")].map((text, i) => ({ role: roles[i], content: text.value }));
  try {
    const answer = await ask("/playground/rows", { method: "POST", body: JSON.stringify({ messages, draft: where.value || null }), headers: { "content-type": "application/json" } });
    const kept = await answer.json();
    box.close();
    sessionStorage.setItem(LAST, kept.id);
    tell(fill(t.kept, { name: kept.name, n: number(kept.rows) }), "ok", { href: kept.href, text: t.keep_open });
  } catch (error) {
    say(fault, error);
  }
});
