// What every page needs: form tokens, times in the reader's zone, copying, dialogs. Texts come from
// the page, in the reader's language.
import { awayError, offline } from "./away.js";

const body = document.body;
export const texts = JSON.parse(body.dataset.texts || "{}");
export const language = document.documentElement.lang;

/** fetch with the session's form token; an error answer becomes an Error with its sentence, no
    answer one of our own. */
export async function ask(url, options = {}) {
  const headers = { accept: "application/json", "x-form-token": body.dataset.token, ...options.headers };
  let answer;
  try {
    answer = await fetch(url, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    offline(true);
    throw awayError();
  }
  offline(false);
  if (answer.ok) return answer;
  if (answer.status === 401) throw Object.assign(new Error(texts.session_over), { isOwn: true, status: 401 });
  let told = { message: answer.statusText };
  try { told = (await answer.json()).error ?? told; } catch { /* not JSON: the status says it */ }
  const error = new Error([told.message, told.remedy].filter(Boolean).join(" "));
  throw Object.assign(error, { status: answer.status, code: told.code, lang: told.lang, exactly: told.exactly });
}

/** Says something in the place for notices; `kind` is ok, warn or bad; `link` leads on. What the
    server says is English, what a page says of itself is in the reader's language (`lang` null). */
export function tell(message, kind = "bad", link = null, lang = kind === "bad" ? "en" : null, exactly = null) {
  const place = document.getElementById("notices");
  const box = document.createElement("div");
  box.className = `notice ${kind}`;
  const line = document.createElement("p");
  line.textContent = message;
  if (lang) line.lang = lang;
  if (link) {
    const way = document.createElement("a");
    way.href = link.href;
    way.textContent = link.text;
    line.append(" ", way);
  }
  box.append(line);
  if (exactly) box.append(inWordsOfTheWire(exactly));
  place.replaceChildren(box);
  box.scrollIntoView({ block: "nearest" });
}

/** What the wire says, under a sentence in the reader's language. */
function inWordsOfTheWire(exactly) {
  const line = document.createElement("p"), said = document.createElement("span");
  line.className = "muted small";
  said.lang = "en";
  said.textContent = exactly;
  line.append(`${texts.exactly}: `, said);
  return line;
}

/** Tells of an error; that nobody answers stands at the foot of the page already. */
export function complain(error) {
  if (!error.isAway) tell(error.message, "bad", null, languageOf(error), error.exactly);
}

/** Says an error where it belongs, such as in a dialog. */
export function fault(place, error) {
  place.textContent = error.message;
  place.lang = languageOf(error);
  place.hidden = false;
}

/** A sentence of ours is in the reader's language; the server says which one its own is in. */
export const languageOf = (error) => (error.isOwn ? language : error.lang ?? "en");

/** `text` with {names} filled in; of "one|many" the form for `n`. */
export function fill(text, values = {}) {
  if (text.includes("|")) text = text.split("|")[String(values.n) === "1" ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const number = (value, decimals = 0) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: decimals, maximumFractionDigits: decimals, useGrouping: "always" }).format(value);

/** A span of time in its two largest units. */
export function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, length] of units) {
    const count = Math.floor(rest / length);
    rest %= length;
    if (count || parts.length || unit === "s") parts.push([count, unit]);
    if (parts.length === 2) break;
  }
  return parts.filter(([count], i) => count || (i === 0)).map(([count, unit]) => `${count}\u202f${unit}`).join(" ");
}

/** Times in the reader's zone and language. */
export function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(time.dateTime);
    if ("day" in time.dataset) { // a day of the ledger, which counts by UTC
      time.textContent = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" }).format(moment);
      time.dataset.local = "";
      continue;
    }
    const today = new Date().toDateString() === moment.toDateString();
    const short = today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
    time.textContent = new Intl.DateTimeFormat(language, short).format(moment);
    time.title = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" }).format(moment);
    time.dataset.local = "";
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  const before = button.textContent;
  button.textContent = texts.copied;
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["x-form-token"] = body.dataset.token;
});
// What was refused is said until the same place is answered; its fields show what holds again.
let refused = null;
document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.failed && detail.xhr.status) {
    refused = detail.elt;
    if (refused.matches("form[data-sure-remade]")) refused.reset();
  } else if (detail.successful && refused && (detail.elt === refused || !refused.isConnected)) {
    refused = null;
    document.getElementById("notices").replaceChildren();
  }
});
document.addEventListener("htmx:load", (event) => localTimes(event.detail.elt));

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-copy], [data-open], [data-close]");
  if (!target) return;
  if (target.dataset.copy) copy(target);
  else if (target.dataset.open) document.getElementById(target.dataset.open).showModal();
  else target.closest("dialog").close();
});
/** Asks once more before what cannot be undone. */
export function sure(word, yes, no = () => {}) {
  const box = document.getElementById("sure");
  let is = false;
  document.getElementById("sure-word").textContent = word;
  document.getElementById("sure-yes").onclick = () => { is = true; box.close(); };
  box.addEventListener("close", () => { if (is) yes(); else no(); }, { once: true });
  box.showModal();
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.sure || form.dataset.isSure) return;
  event.preventDefault();
  sure(form.dataset.sure, () => { form.dataset.isSure = "1"; form.requestSubmit(); });
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

if (!body.dataset.token) sessionStorage.clear(); // nobody is signed in: what pages kept is nobody's
localTimes(document);
document.querySelector(".side nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
document.documentElement.classList.add("with-script");
