// The playground as a table: every prompt of a file to each model, a few at a time, with scores.
// What files and models say is put in as text, never as markup.
import { ask, complain, fill, languageOf, number, span } from "./app.js";
import { stream } from "./asking.js";
import { chosen } from "./asked.js";
import { back } from "./away.js";
import { keepRow } from "./keep.js";

const page = document.getElementById("table");
const t = JSON.parse(page.dataset.texts);
const AT_ONCE = 4, SHOWN = 300;
const $ = (id) => document.getElementById(id);
let prompts = [], results = [], models = [], source = null, stopper = null, done = 0;

const make = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};
const plain = (text) => text.trim().replace(/\s+/g, " ").toLowerCase();

// --- where the prompts come from

async function take(told) {
  prompts = told.prompts;
  results = [];
  const columns = $("columns");
  columns.hidden = !source || !told.prompt;
  if (!columns.hidden) {
    for (const [id, chosen, none] of [["prompt-column", told.prompt, false], ["expected-column", told.expected, true]]) {
      $(id).replaceChildren(...(none ? [new Option(t.no_expected, "")] : []), ...told.columns.map((name) => new Option(name, name)));
      $(id).value = chosen ?? "";
    }
  }
  const words = [fill(t.prompts, { n: number(prompts.length) }), fill(t.with_answer, { n: number(prompts.filter((p) => p.expected !== null).length) })];
  if (told.passed_over) words.push(fill(t.passed_over, { n: number(told.passed_over) }));
  if (told.beyond) words.push(fill(t.beyond, { n: number(told.beyond), most: page.dataset.limit }));
  $("about").textContent = words.join(" ");
  $("run").disabled = !prompts.length || !$("models").querySelector("option");
  $("export").hidden = true;
  $("scored").hidden = true;
  try { models = chosen(); } catch { models = []; } // said when they are asked
  head();
  rows();
}

async function read(columns = {}) {
  const query = new URLSearchParams({ name: source.name, ...columns });
  try {
    const headers = { "content-type": "application/octet-stream" };
    await take(await (await ask(`/playground/table/prompts?${query}`, { method: "POST", body: source, headers })).json());
  } catch (error) { complain(error); }
}

$("file").addEventListener("change", () => { source = $("file").files[0] ?? null; $("file-name").textContent = source?.name ?? ""; $("kept").value = ""; if (source) read(); });
$("kept").addEventListener("change", async () => {
  source = null;
  $("file").value = "";
  $("file-name").textContent = "";
  if (!$("kept").value) return;
  try { await take(await (await ask(`/playground/table/files/${$("kept").value}`)).json()); } catch (error) { complain(error); }
});
for (const id of ["prompt-column", "expected-column"]) $(id).addEventListener("change", () => read({ prompt: $("prompt-column").value, expected: $("expected-column").value }));

// --- the table

function head() {
  const row = make("tr");
  row.append(make("th", "#", "num"), make("th", t.prompt), make("th", t.expected), ...models.map((model) => named(model, "th")));
  $("head").replaceChildren(row);
}
/** A model's name in a head, and what is its own. */
function named(model, tag) {
  const cell = make(tag, model.label);
  if (model.own) cell.append(make("span", model.own, "own-word muted small"));
  return cell;
}

function rows() {
  $("body").replaceChildren(...prompts.slice(0, SHOWN).map((prompt, i) => {
    const row = make("tr");
    const said = prompt.messages.filter((m) => m.role !== "system").map((m) => m.content).join("\n");
    row.append(make("td", number(i + 1), "num"), long(said), long(prompt.expected ?? ""));
    for (let m = 0; m < models.length; m++) row.append(make("td", stopper && !results[i]?.[m] ? "…" : "", "answer"));
    return row;
  }));
  $("more").textContent = prompts.length > SHOWN ? fill(t.shown, { n: number(SHOWN), all: number(prompts.length) }) : "";
  $("place").hidden = !prompts.length;
}
/** A text that scrolls in its place, by the keyboard too. */
function longText(text) {
  const place = make("div", text, "long-text");
  if (text.length > 150) place.tabIndex = 0;
  return place;
}
function long(text) {
  const cell = make("td");
  cell.append(longText(text));
  return cell;
}

function show(i, m) {
  const cell = $("body").children[i]?.children[3 + m];
  if (!cell) return;
  const found = results[i][m];
  if (found.error) { const word = make("p", found.error, "say error"); word.lang = found.lang; cell.replaceChildren(word); return; }
  const marks = make("p", "", "marks");
  if (found.exact !== null) {
    marks.append(make("span", found.exact ? t.exact : found.contains ? t.contains : t.other, `badge ${found.exact ? "ok" : found.contains ? "warn" : ""}`));
  }
  if (found.score !== null) { const word = make("span", number(found.score, 3), "muted small num"); word.title = t.score; marks.append(word); }
  if (found.cut) marks.append(make("span", t.cut, "muted small"));
  const keep = make("button", t.keep_short, "link small");
  keep.type = "button";
  keep.setAttribute("aria-label", `${t.keep}: ${number(i + 1)}, ${models[m].label}`);
  keep.addEventListener("click", () => keepRow([...messagesOf(prompts[i], models[m]), { role: "assistant", content: found.text }]));
  marks.append(keep);
  cell.replaceChildren(longText(found.text), marks);
}

// --- running

function messagesOf(prompt, model) {
  const own = prompt.messages.some((message) => message.role === "system" || message.role === "developer");
  return model.system.trim() && !own ? [{ role: "system", content: model.system }, ...prompt.messages] : prompt.messages;
}

async function one(i, m) {
  const prompt = prompts[i], model = models[m], messages = messagesOf(prompt, model);
  const found = { text: "", exact: null, contains: null, score: null, cut: false, error: null, lang: "en", took: 0, tokens: 0 };
  try {
    const told = await stream({ model: model.name, messages, ...model.numbers }, stopper.signal);
    Object.assign(found, { text: told.text || told.calls, cut: told.cut, took: told.took, tokens: told.usage?.completion_tokens ?? 0 });
    if (prompt.expected !== null) {
      found.exact = plain(found.text) === plain(prompt.expected);
      found.contains = plain(found.text).includes(plain(prompt.expected));
      if ($("likelihood").checked) {
        const whole = [...messages, { role: "assistant", content: prompt.expected }];
        const answer = await ask("/playground/table/score", { method: "POST", body: JSON.stringify({ model: model.name, messages: whole }), headers: { "content-type": "application/json" }, signal: stopper.signal });
        found.score = (await answer.json()).per_token;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.isAway) { // the table waits for the server, and asks again
      await back(stopper.signal);
      stopper.signal.throwIfAborted();
      return one(i, m);
    }
    Object.assign(found, { error: error.message, lang: languageOf(error) });
  }
  results[i][m] = found;
}

async function run() {
  try { models = chosen(); } catch (error) { complain(error); return; }
  $("notices").replaceChildren();
  results = prompts.map(() => []);
  done = 0;
  stopper = new AbortController();
  const all = prompts.length * models.length, started = performance.now();
  head();
  rows();
  const bar = $("bar");
  bar.max = all; bar.value = 0; bar.hidden = false;
  $("scored").hidden = false;
  sums();
  $("run").disabled = true;
  $("stop").hidden = false;
  $("export").hidden = true;
  let next = 0;
  const worker = async () => {
    while (next < all && !stopper.signal.aborted) {
      const mine = next++, i = Math.floor(mine / models.length), m = mine % models.length;
      try { await one(i, m); } catch { return; }
      done++;
      bar.value = done;
      const left = (performance.now() - started) / done * (all - done) / 1000;
      $("state").textContent = fill(t.state, { done: number(done), all: number(all), left: span(left) });
      show(i, m);
      sums();
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, all) }, worker));
  $("state").textContent = fill(stopper.signal.aborted ? t.stopped : t.finished, { done: number(done), all: number(all), left: span((performance.now() - started) / 1000) });
  bar.hidden = true;
  for (const cell of $("body").querySelectorAll("td.answer")) if (cell.textContent === "…") cell.textContent = "–";
  $("run").disabled = false;
  $("stop").hidden = true;
  $("export").hidden = done === 0;
}

function sums() {
  const share = (values) => values.length ? `${number(values.filter(Boolean).length / values.length * 100, 0)} %` : "–";
  const mean = (values, decimals) => values.length ? number(values.reduce((a, b) => a + b, 0) / values.length, decimals) : "–";
  $("scores").replaceChildren(...models.map((model, m) => {
    const found = results.map((row) => row[m]).filter((one) => one && !one.error);
    const failed = results.filter((row) => row[m]?.error).length;
    const judged = found.filter((one) => one.exact !== null);
    const row = make("tr");
    const cells = [number(found.length), share(judged.map((one) => one.exact)), share(judged.map((one) => one.contains)), mean(found.filter((one) => one.score !== null).map((one) => one.score), 3), mean(found.map((one) => one.tokens), 0), found.length ? `${mean(found.map((one) => one.took), 0)}\u202fms` : "–", number(failed)];
    row.append(named(model, "td"), ...cells.map((text) => make("td", text, "num")));
    return row;
  }));
}

// --- taking it away

/** A cell of CSV that no spreadsheet reads a formula into. */
export function csvCell(value) {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

$("export").addEventListener("click", () => {
  const names = ["prompt", "expected", ...models.flatMap(({ name, own }) => ["", " exact", " contains", " log-likelihood"].map((what) => `${name}${own && ` (${own})`}${what}`))];
  const lines = prompts.map((prompt, i) => [prompt.messages.map((m) => m.content).join("\n"), prompt.expected, ...models.flatMap((_, m) => {
    const found = results[i]?.[m];
    return found ? [found.error ?? found.text, found.exact, found.contains, found.score] : ["", "", "", ""];
  })]);
  const text = [names, ...lines].map((line) => line.map(csvCell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  link.download = "afina-table.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
$("run").addEventListener("click", run);
// The questions are asked from this page: the browser asks before it is left while they are.
addEventListener("beforeunload", (event) => { if (!$("stop").hidden) event.preventDefault(); });
$("stop").addEventListener("click", () => stopper?.abort());
