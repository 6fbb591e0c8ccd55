// The playground as a table: every prompt of a file to each model, a few at a time, with scores.
// What files and models say is put in as text, never as markup.
import { ask, fill, number, span, tell } from "./app.js";
import { stream } from "./asking.js";
import { keepRow } from "./keep.js";

const page = document.getElementById("table");
const t = JSON.parse(page.dataset.texts);
const MOST = Number(page.dataset.most), AT_ONCE = 4, SHOWN = 300;
const $ = (id) => document.getElementById(id);
let prompts = [], results = [], models = [], source = null, stopper = null, done = 0;
const labels = new Map([...$("model").content.querySelectorAll("option")].map((option) => [option.value, option.textContent.trim()]));

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
  models = chosen();
  head();
  rows();
}

async function read(columns = {}) {
  const query = new URLSearchParams({ name: source.name, ...columns });
  try {
    const headers = { "content-type": "application/octet-stream" };
    await take(await (await ask(`/playground/table/prompts?${query}`, { method: "POST", body: source, headers })).json());
  } catch (error) { tell(error.message); }
}

$("file").addEventListener("change", () => { source = $("file").files[0] ?? null; $("file-name").textContent = source?.name ?? ""; $("kept").value = ""; if (source) read(); });
$("kept").addEventListener("change", async () => {
  source = null;
  $("file").value = "";
  $("file-name").textContent = "";
  if (!$("kept").value) return;
  try { await take(await (await ask(`/playground/table/files/${$("kept").value}`)).json()); } catch (error) { tell(error.message); }
});
for (const id of ["prompt-column", "expected-column"]) $(id).addEventListener("change", () => read({ prompt: $("prompt-column").value, expected: $("expected-column").value }));

// --- the models

function addModel(name) {
  const element = $("model").content.firstElementChild.cloneNode(true);
  const select = element.querySelector("select");
  if (name) select.value = name;
  element.querySelector("button").addEventListener("click", () => { element.remove(); count(); });
  select.addEventListener("change", remember);
  $("models").append(element);
  count();
}
function count() {
  const all = [...$("models").children];
  all.forEach((element, i) => {
    element.querySelector("select").setAttribute("aria-label", fill(t.model, { n: i + 1 }));
    element.querySelector("button").hidden = all.length === 1;
  });
  $("add").hidden = all.length >= MOST;
  remember();
}
const chosen = () => [...$("models").querySelectorAll("select")].map((select) => select.value).filter((name, i, all) => name && all.indexOf(name) === i);
function remember() { history.replaceState(null, "", `?${new URLSearchParams(chosen().map((name) => ["model", name]))}`); }

// --- the table

function head() {
  const row = make("tr");
  row.append(cellOf("th", "#", "num"), make("th", t.prompt), make("th", t.expected), ...models.map((name) => make("th", labels.get(name) ?? name)));
  $("head").replaceChildren(row);
}
function cellOf(tag, text, name) { const cell = make(tag, text, name); return cell; }

function rows() {
  $("body").replaceChildren(...prompts.slice(0, SHOWN).map((prompt, i) => {
    const row = make("tr");
    const said = prompt.messages.filter((m) => m.role !== "system").map((m) => m.content).join("\n");
    row.append(cellOf("td", number(i + 1), "num"), long(said), long(prompt.expected ?? ""));
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
  if (found.error) { const word = make("p", found.error, "say error"); word.lang = "en"; cell.replaceChildren(word); return; }
  const marks = make("p", "", "marks");
  if (found.exact !== null) {
    marks.append(make("span", found.exact ? t.exact : found.contains ? t.contains : t.other, `badge ${found.exact ? "ok" : found.contains ? "warn" : ""}`));
  }
  if (found.score !== null) { const word = make("span", number(found.score, 3), "muted small num"); word.title = t.score; marks.append(word); }
  if (found.cut) marks.append(make("span", t.cut, "muted small"));
  const keep = make("button", t.keep_short, "link small");
  keep.type = "button";
  keep.setAttribute("aria-label", `${t.keep}: ${number(i + 1)}, ${models[m]}`);
  keep.addEventListener("click", () => keepRow([...messagesOf(prompts[i]), { role: "assistant", content: found.text }]));
  marks.append(keep);
  cell.replaceChildren(longText(found.text), marks);
}

// --- running

function messagesOf(prompt) {
  const system = $("system").value.trim();
  const own = prompt.messages.some((message) => message.role === "system" || message.role === "developer");
  return system && !own ? [{ role: "system", content: $("system").value }, ...prompt.messages] : prompt.messages;
}

async function one(i, m) {
  const prompt = prompts[i], messages = messagesOf(prompt);
  const found = { text: "", exact: null, contains: null, score: null, cut: false, error: null, took: 0, tokens: 0 };
  try {
    const body = { model: models[m], messages, temperature: Number($("temperature").value), seed: 1, max_completion_tokens: Number($("max_tokens").value) };
    const told = await stream(body, stopper.signal);
    Object.assign(found, { text: told.text || told.calls, cut: told.cut, took: told.took, tokens: told.usage?.completion_tokens ?? 0 });
    if (prompt.expected !== null) {
      found.exact = plain(found.text) === plain(prompt.expected);
      found.contains = plain(found.text).includes(plain(prompt.expected));
      if ($("likelihood").checked) {
        const whole = [...messages, { role: "assistant", content: prompt.expected }];
        const answer = await ask("/playground/table/score", { method: "POST", body: JSON.stringify({ model: models[m], messages: whole }), headers: { "content-type": "application/json" }, signal: stopper.signal });
        found.score = (await answer.json()).per_token;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    found.error = error.message;
  }
  results[i][m] = found;
}

async function run() {
  models = chosen();
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
  $("run").disabled = false;
  $("stop").hidden = true;
  $("export").hidden = done === 0;
}

function sums() {
  const share = (values) => values.length ? `${number(values.filter(Boolean).length / values.length * 100, 0)} %` : "–";
  const mean = (values, decimals) => values.length ? number(values.reduce((a, b) => a + b, 0) / values.length, decimals) : "–";
  $("scores").replaceChildren(...models.map((name, m) => {
    const found = results.map((row) => row[m]).filter((one) => one && !one.error);
    const failed = results.filter((row) => row[m]?.error).length;
    const judged = found.filter((one) => one.exact !== null);
    const row = make("tr");
    const cells = [number(found.length), share(judged.map((one) => one.exact)), share(judged.map((one) => one.contains)), mean(found.filter((one) => one.score !== null).map((one) => one.score), 3), mean(found.map((one) => one.tokens), 0), `${mean(found.map((one) => one.took), 0)}\u202fms`, number(failed)];
    row.append(make("td", labels.get(name) ?? name), ...cells.map((text) => cellOf("td", text, "num")));
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
  const names = ["prompt", "expected", ...models.flatMap((name) => [name, `${name} exact`, `${name} contains`, `${name} log-likelihood`])];
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
$("add").addEventListener("click", () => addModel());
$("run").addEventListener("click", run);
$("stop").addEventListener("click", () => stopper?.abort());

for (const name of JSON.parse(page.dataset.asked)) addModel(name);
if (!$("models").children.length) addModel();
for (const name of chosen()) {
  try {
    const told = await (await ask(`/playground/about?model=${encodeURIComponent(name)}`)).json();
    if (told.system) $("system").value = told.system;
  } catch { /* the model is gone: asking it will say so */ }
}
