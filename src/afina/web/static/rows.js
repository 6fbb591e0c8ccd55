// The table of a draft's rows. Only the rows in sight are in the page: the server gives windows of
// them. Texts are put in as text, never as markup.
import { ask, complain, fault, fill, number, sure } from "./app.js";

const HEIGHT = 88, WINDOW = 100, BEYOND = 8, SLOW_MS = 400, PAIR = new Set(["preferred", "rejected"]);
const editor = document.getElementById("editor");
const form = document.getElementById("editor-form");
let table, space, t, draft, which, total, windows, shown, editing, marks, wanted = null, silent = false;

function begin() {
  table = document.getElementById("rows");
  if (!table || table.dataset.begun) return;
  table.dataset.begun = "1";
  space = table.firstElementChild;
  t = JSON.parse(table.dataset.texts);
  draft = table.dataset.draft;
  which = document.getElementById("which");
  which.addEventListener("change", () => { wanted = null; again(); });
  document.getElementById("go").addEventListener("submit", (event) => { event.preventDefault(); go(Number(event.target.elements["go-row"].value)); });
  table.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  table.addEventListener("click", onClick);
  table.addEventListener("keydown", onKey);
  new ResizeObserver(draw).observe(table);
  total = Number(table.getAttribute("aria-rowcount"));
  again();
  const asked = /^#row-(\d+)$/.exec(location.hash);
  if (asked) go(Number(asked[1]));
}

/** Brings a row into sight, by its number in the file, and marks it. */
function go(n) {
  if (!n || n > Number(table.dataset.rows)) return;
  wanted = n;
  if (which.value !== "all") { which.value = "all"; total = Number(table.dataset.rows); }
  again();
  space.style.height = `${total * HEIGHT}px`;
  table.style.height = `min(${total * HEIGHT + 2}px, 34rem, 70vh)`;
  table.scrollTop = Math.max(0, (n - 1) * HEIGHT - table.clientHeight / 3);
  table.scrollIntoView({ block: "nearest" });
  draw();
}

function again() {
  windows = new Map();
  marks = { personal: {}, moderation: {} };
  shown = new Map();
  space.replaceChildren();
  load(0);
}

async function load(start) {
  if (windows.has(start)) return;
  const mine = windows;
  windows.set(start, null);
  try {
    const answer = await ask(`/data/${draft}/rows?which=${which.value}&start=${start}&count=${WINDOW}`);
    const told = await answer.json();
    if (mine !== windows) return;
    windows.set(start, told.rows);
    total = told.total;
    table.setAttribute("aria-rowcount", total);
    draw();
    for (const what of silent ? ["personal"] : ["personal", "moderation"]) mark(what, start, mine);
  } catch (error) {
    mine.delete(start);
    complain(error);
  }
}

/** What moderation and the search for personal data say of a window; it comes after the rows. */
async function mark(what, start, mine) {
  try {
    const told = await (await ask(`/data/${draft}/marks?what=${what}&which=${which.value}&start=${start}&count=${WINDOW}`)).json();
    if (mine !== windows) return;
    if (told.reason && !silent) {
      silent = true;
      const word = line("span", "", ` ${t.moderation_none} `);
      const reason = line("span", "", told.reason);
      reason.lang = told.lang;
      document.getElementById("marks-word").append(word, reason);
    }
    Object.assign(marks[what], told.marks);
    for (const [place, element] of shown) {
      const row = windows.get(Math.floor(place / WINDOW) * WINDOW)?.[place % WINDOW];
      if (!row || !(row.n in told.marks)) continue;
      const fresh = make(row, place);
      element.replaceWith(fresh);
      shown.set(place, fresh);
    }
  } catch { /* the rows stand without their marks */ }
}

function draw() {
  if (!windows) return;
  table.style.height = `min(${Math.max(total, 1) * HEIGHT + 2}px, 34rem, 70vh)`;
  space.style.height = `${Math.max(total, 1) * HEIGHT}px`;
  if (total === 0) { space.replaceChildren(line("p", "muted rows-none", t.no_rows)); return; }
  const first = Math.max(0, Math.floor(table.scrollTop / HEIGHT) - BEYOND);
  const last = Math.min(total, Math.ceil((table.scrollTop + table.clientHeight) / HEIGHT) + BEYOND);
  for (const [place, element] of shown) {
    if (place < first || place >= last) { element.remove(); shown.delete(place); }
  }
  for (let place = first; place < last; place++) {
    if (shown.has(place)) continue;
    const start = Math.floor(place / WINDOW) * WINDOW;
    const rows = windows.get(start);
    if (!rows) { load(start); continue; }
    const row = rows[place - start];
    if (row) { const element = make(row, place); shown.set(place, element); space.append(element); }
  }
}

function line(tag, name, text) {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

function make(row, place) {
  const element = line("div", "row", "");
  element.setAttribute("role", "row");
  element.setAttribute("aria-rowindex", place + 1);
  element.style.transform = `translateY(${place * HEIGHT}px)`;
  const worst = row.findings.some((f) => f.severity === "error") ? "bad" : row.findings.length ? "warn" : "";
  element.classList.add(...[row.dropped && "dropped", row.n === wanted && "wanted", worst].filter(Boolean));
  const parts = split(row);
  const count = cell("n", number(row.n));
  if (row.edited) count.append(line("span", "tag", t.edited));
  if (row.dropped) count.append(line("span", "tag", t.is_dropped));
  const beside = cell("beside", "");
  for (const finding of row.findings) {
    const word = line("p", `say ${finding.severity}`, finding.text);
    word.title = finding.text; // a narrow row shows its beginning
    beside.append(word);
  }
  for (const what of ["moderation", "personal"]) {
    const found = row.dropped ? null : marks[what][row.n];
    if (found) beside.append(line("p", `say mark ${what}`, `${t[`mark_${what}`]}: ${found.join(", ")}`));
  }
  const told = [...beside.children].map((word) => word.textContent);
  if (told.length > 1) beside.title = told.join("\n"); // several show their beginnings
  const act = line("div", "row-act", "");
  const edit = line("button", worst ? "mend" : "plain mend", worst === "bad" ? t.mend : t.edit);
  const drop = line("button", "plain drop-row", t.drop_row);
  for (const button of [edit, drop]) {
    button.type = "button";
    button.dataset.row = row.n;
    button.setAttribute("aria-label", `${button.textContent}: ${fill(t.edit_row, { n: row.n })}`);
  }
  if (!row.dropped) act.append(edit, drop);
  beside.append(act);
  element.append(count, cell("said", parts[0]), cell("answered", parts[1]), beside);
  return element;
}

function cell(name, text) {
  const element = line("div", `cell ${name}`, "");
  element.setAttribute("role", "cell");
  const inner = line("p", text === "" && name !== "beside" ? "clip hole" : "clip", text === "" && name !== "beside" ? t.empty_cell : text);
  if (name !== "beside") element.append(inner);
  return element;
}

/** What stands in the two columns: all that is said before the last answer, and that answer. */
function split(row) {
  if (!row.messages) return [row.text, " "];
  const last = row.messages.at(-1), first = row.messages.findIndex((m) => PAIR.has(m.role));
  if (first >= 0) { // two answers to one question
    const answers = row.messages.slice(first).map((m) => `${t[`role_${m.role}`]}: ${m.content}`);
    return [row.messages.slice(0, first).map((m) => m.content).join(" / "), answers.join(" · ")];
  }
  const answered = last.role !== "user"; // a question without an answer is no answer itself
  const before = (answered ? row.messages.slice(0, -1) : row.messages).filter((m) => m.role !== "system" || row.messages.length < 3);
  return [before.map((m) => m.content).join(" / "), answered ? last.content : ""];
}

async function onClick(event) {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("mend")) await open(Number(button.dataset.row)).catch(complain);
  else await change("drop", { rows: [Number(button.dataset.row)] });
}

function onKey(event) {
  const step = { ArrowDown: HEIGHT, ArrowUp: -HEIGHT, PageDown: table.clientHeight, PageUp: -table.clientHeight }[event.key];
  if (step && event.target === table) { event.preventDefault(); table.scrollBy({ top: step }); }
}

async function open(n) {
  const rows = await (await ask(`/data/${draft}/rows?which=all&start=${n - 1}&count=1&whole=1`)).json();
  const row = rows.rows[0];
  const unanswered = row.messages?.at(-1)?.role === "user"; // its answer can be written here
  const parts = [...(row.messages ?? [{ role: null, content: row.text }]), ...(unanswered ? [{ role: "assistant", content: "" }] : [])];
  editing = { n, row, parts };
  document.getElementById("editor-title").textContent = fill(t.edit_row, { n: number(n) });
  document.getElementById("editor-error").hidden = true;
  const fields = document.getElementById("editor-fields");
  fields.replaceChildren(...parts.map((message, i) => {
    const field = line("div", "field", "");
    const label = line("label", "", message.role ? (t[`role_${message.role}`] ?? message.role) : t.as_json);
    const box = document.createElement("textarea");
    box.id = label.htmlFor = `part-${i}`;
    box.value = message.content;
    box.rows = Math.min(12, Math.max(2, message.content.split("\n").length, Math.ceil(message.content.length / 70)));
    field.append(label, box);
    return field;
  }));
  editor.showModal();
  const boxes = [...fields.querySelectorAll("textarea")];
  (boxes.find((box) => box.value.trim() === "") ?? boxes.at(-1)).focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const boxes = [...form.querySelectorAll("textarea")].map((box) => box.value);
  const messages = editing.row.messages && editing.parts.map((message, i) => ({ ...message, content: boxes[i] }))
    .filter((message, i) => i < editing.row.messages.length || message.content.trim() !== "");
  const text = messages ? JSON.stringify({ messages }) : boxes[0];
  try {
    if (await send(`rows/${editing.n}`, { text })) editor.close();
  } catch (error) {
    fault(document.getElementById("editor-error"), error);
  }
});

let busy = false;

/** All rows are checked again after an edit: of a large file that takes a while, which is said. */
async function edited(what, body) {
  busy = true;
  const words = () => document.querySelectorAll(".checking");
  const slow = setTimeout(() => { for (const word of words()) word.hidden = false; }, SLOW_MS);
  try {
    return await (await ask(`/data/${draft}/${what}`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } })).json();
  } finally {
    busy = false;
    clearTimeout(slow);
    for (const word of words()) word.hidden = true;
  }
}

async function send(what, body) {
  if (busy) return false;
  const { bad } = await edited(what, body);
  // Once nothing is left to mend, the table shows what was mended; an undo leads back.
  if (which.value === "findings" && !bad) which.value = what === "drop" ? "dropped" : "edited";
  else if (["edited", "dropped"].includes(which.value) && bad && what === "undo") which.value = "findings";
  window.htmx.trigger("#summary", "refresh");
  const place = table.scrollTop;
  again();
  table.scrollTop = place;
  return true;
}

async function change(what, body = {}) {
  try { await send(what, body); } catch (error) { complain(error); }
}

document.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (act === "drop-bad") change("drop", { rows: "bad" });
  else if (act === "undo" || act === "redo") change(act);
});
// Other columns make other rows, and edits on the old ones go: that is asked before.
let changed = null;
document.addEventListener("change", (event) => { changed = event.target; }, true);
document.addEventListener("htmx:confirm", (event) => {
  const form = event.target, edited = document.querySelector('[data-act="undo"]:not([disabled])');
  if (!form.dataset.sureRemade || !edited || !changed?.matches("[data-remakes]")) return;
  event.preventDefault();
  sure(form.dataset.sureRemade, () => event.detail.issueRequest(true), () => form.reset());
});
document.addEventListener("htmx:afterSettle", begin);
document.addEventListener("afina:back", () => draw());
begin();
