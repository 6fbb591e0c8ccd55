// The playground: the same request to each model, streamed side by side. What models say is put
// into the page as text, never as markup.
import { ask, complain, fill, languageOf, number, tell, texts } from "./app.js";
import { numbersIn, ownSettings } from "./own.js";
import { stream } from "./asking.js";
import { keepRow } from "./keep.js";
import { showTokens, tokenText } from "./tokens.js";
import { markDifferences } from "./differences.js";
import { asCurl, asPython } from "./code.js";
import { keepFor, recalled } from "./recall.js";

const page = document.getElementById("play");
const t = JSON.parse(page.dataset.texts);
const MOST = Number(page.dataset.most);
const sides = [];
const $ = (id) => document.getElementById(id);
let system = null, stopper = null, votes = {};

function addSide(model) {
  if (sides.length >= MOST) return;
  const element = $("side").content.firstElementChild.cloneNode(true);
  const side = { element, select: element.querySelector("select"), talk: element.querySelector(".talk"), line: element.querySelector(".figures-line"), history: [], answer: "", trained: null };
  side.own = ownSettings(element, t, word);
  if (model) side.select.value = model;
  side.select.addEventListener("change", () => { remember(); about(); });
  element.querySelector(".side-remove").addEventListener("click", () => { sides.splice(sides.indexOf(side), 1); element.remove(); number_(); remember(); about(); });
  element.querySelector(".side-vote").addEventListener("click", () => vote(side));
  element.querySelector(".side-keep").addEventListener("click", () => keep(side));
  sides.push(side);
  $("sides").append(element);
  number_();
}

function number_() {
  sides.forEach((side, i) => {
    const name = fill(t.model, { n: i + 1 });
    side.select.setAttribute("aria-label", name);
    side.talk.setAttribute("aria-label", name);
    side.own.box.setAttribute("aria-label", `${t.own}: ${name}`);
    side.element.querySelector(".side-remove").hidden = sides.length === 1;
  });
  $("add").hidden = sides.length >= MOST;
  $("sides").dataset.count = sides.length;
}

/** Which system prompt each side's model was trained with; that of the last tuned one is for all. */
async function about() {
  system = null;
  for (const side of sides) {
    side.trained = null;
    try {
      side.trained = (await (await ask(`/playground/about?model=${encodeURIComponent(side.select.value)}`)).json()).system;
    } catch { /* the model is gone: asking it will say so */ }
    if (side.trained !== null) system = side.trained;
  }
  if (system !== null && !$("system").dataset.touched) $("system").value = system;
  word();
}

function word() {
  const same = $("system").value.trim() === (system ?? "").trim();
  const known = system !== null;
  $("system-word").textContent = !known ? "" : same ? (system ? t.system_trained : t.system_trained_none) : t.system_other;
  $("system-word").classList.toggle("bad-word", known && !same);
  $("restore").hidden = !known || same;
  for (const side of sides) side.own.follow($, $("system").value, side.trained);
}

function settings() {
  const found = numbersIn($, t);
  for (const [id, put] of [["schema", (value) => { found.response_format = { type: "json_schema", json_schema: { name: "answer", schema: value } }; }], ["tools", (value) => { found.tools = value; }]]) {
    const text = $(id).value.trim();
    if (!text) continue;
    try { put(JSON.parse(text)); } catch (error) { throw Object.assign(new Error(fill(t.json_wrong, { name: error.message })), { isOwn: true }); }
  }
  return found;
}

function request(side, history) {
  const prompt = side.own.system() ?? $("system").value;
  const messages = [...(prompt.trim() ? [{ role: "system", content: prompt }] : []), ...history];
  return { model: side.select.value, messages, ...settings(), ...side.own.numbers() };
}

function say(side, kind, who, text) {
  const bubble = document.createElement("div");
  bubble.className = `bubble ${kind}`;
  const name = document.createElement("span");
  name.className = "who";
  name.textContent = who;
  const content = document.createElement("div");
  content.className = "said-text";
  content.textContent = text;
  bubble.append(name, content);
  side.talk.append(bubble);
  side.talk.scrollTop = side.talk.scrollHeight;
  return content;
}

async function run(side, text, signal) {
  if (!side.history.length) side.talk.replaceChildren();
  const history = [...side.history, { role: "user", content: text }];
  const body = request(side, history);
  if ($("probabilities").checked) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  say(side, "user", t.you, text);
  const place = say(side, "assistant", shownName(side), "");
  side.line.textContent = t.waiting;
  const tokens = [], decoder = tokenText();
  side.answer = "";
  try {
    const told = await stream(body, signal, (piece, probabilities) => {
      if (probabilities) { for (const token of probabilities) tokens.push(decoder(token)); showTokens(place, tokens); }
      else if (piece) place.append(piece);
      side.answer += piece;
      side.talk.scrollTop = side.talk.scrollHeight;
    });
    if (told.calls) place.append(told.calls);
    side.line.textContent = figures(told);
    side.history = [...history, { role: "assistant", content: side.answer }];
    side.element.querySelector(".side-keep").hidden = !side.answer;
  } catch (error) {
    side.line.textContent = "";
    if (error.name === "AbortError") return;
    const word = document.createElement("p");
    word.lang = languageOf(error);
    word.textContent = error.message;
    place.append(word);
    place.parentElement.classList.add("failed");
    if (error.isAway && !$("message").value) $("message").value = text;
  }
}

function figures({ usage, first, took, cut }) {
  if (!usage) return "";
  const seconds = (took - (first ?? 0)) / 1000;
  const parts = [fill(t.first_token, { n: number(first ?? 0) }), fill(t.counted, { n: number(usage.completion_tokens) })];
  if (usage.completion_tokens > 1 && seconds > 0) parts.push(fill(t.speed, { n: number((usage.completion_tokens - 1) / seconds, 1) }));
  if (cut) parts.push(t.cut);
  return parts.join(" · ");
}

const label = (side) => side.select.selectedOptions[0]?.textContent.trim() ?? side.select.value;
const shownName = (side) => $("blind").checked ? fill(t.blind_name, { n: sides.indexOf(side) + 1 }) : label(side);

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  if (!text || stopper) return;
  try { for (const side of sides) request(side, []); } catch (error) { complain(error); return; }
  $("notices").replaceChildren();
  if ($("blind").checked) shuffle();
  stopper = new AbortController();
  $("send").disabled = true;
  $("stop").hidden = false;
  $("message").value = "";
  const vote = $("blind").checked && sides.length > 1;
  await Promise.all(sides.map((side) => run(side, text, stopper.signal)));
  stopper = null;
  $("send").disabled = false;
  $("stop").hidden = true;
  for (const side of sides) side.element.querySelector(".side-vote").hidden = !vote;
  $("draw").hidden = !vote;
  if ($("diff").checked) differ();
  $("message").focus();
});

function differ() {
  const bubbles = sides.map((side) => [...side.talk.querySelectorAll(".bubble.assistant .said-text")].at(-1)).filter(Boolean);
  if (bubbles.length > 1) bubbles.slice(1).forEach((bubble) => markDifferences(bubbles[0].textContent, bubble));
}

/** For the blind test: the sides change places, their names are hidden until somebody votes. */
function shuffle() {
  for (const side of sides) { side.history = []; side.talk.replaceChildren(); }
  for (let i = sides.length - 1; i > 0; i--) {
    const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
    [sides[i], sides[j]] = [sides[j], sides[i]];
  }
  $("sides").append(...sides.map((side) => side.element));
  number_();
  hideNames(true);
}

function hideNames(hidden) {
  sides.forEach((side, i) => {
    side.select.hidden = hidden;
    side.own.box.hidden = hidden;
    const name = side.element.querySelector(".side-blind");
    name.hidden = !hidden;
    name.textContent = fill(t.blind_name, { n: i + 1 });
  });
}

function vote(side) {
  const name = side ? label(side) : t.draws;
  votes[name] = (votes[name] ?? 0) + 1;
  unasked();
  tally();
}

function tally() {
  const counted = Object.entries(votes).map(([name, n]) => `${name} ${number(n)}`).join(" · ");
  $("tally").textContent = counted && `${t.tally}: ${counted}`;
}

/** Nobody is asked for a vote, and every side shows its name. */
function unasked() {
  $("draw").hidden = true;
  hideNames(false);
  for (const side of sides) side.element.querySelector(".side-vote").hidden = true;
}

function keep(side) {
  keepRow(request(side, side.history).messages).catch(complain);
}

function remember() {
  const query = new URLSearchParams(sides.map((side) => ["model", side.select.value]));
  history.replaceState(null, "", `?${query}${location.hash}`);
}

const FIELDS = ["system", "message", "temperature", "top_p", "max_tokens", "seed", "schema", "tools"];
const FLAGS = ["probabilities", "diff", "blind"];

/** What is set on the page; of the three ways to look at answers those that are on. */
function settled() {
  const state = Object.fromEntries(FIELDS.map((id) => [id, $(id).value]).filter(([, value]) => value !== ""));
  for (const id of FLAGS) if ($(id).checked) state[id] = true;
  if (sides.some((side) => Object.keys(side.own.state()).length)) state.sides = sides.map((side) => side.own.state());
  return state;
}

$("share").addEventListener("click", async () => {
  const state = settled(), asked = sides[0].history[0]?.content;
  if (!state.message && asked) state.message = asked; // who opens the link asks the same
  remember();
  history.replaceState(null, "", `${location.search}#${encodeURIComponent(JSON.stringify(state))}`);
  await navigator.clipboard.writeText(location.href);
  tell(texts.copied, "ok");
});

function apply(state) {
  for (const id of FIELDS) if (typeof state[id] === "string") { $(id).value = state[id]; if (id === "system") $(id).dataset.touched = "1"; }
  for (const id of FLAGS) $(id).checked = state[id] === true;
  $("sure-legend").hidden = !$("probabilities").checked;
  if (Array.isArray(state.sides)) sides.forEach((side, i) => side.own.restore(state.sides[i]));
}

function restore() {
  try { apply(JSON.parse(decodeURIComponent(location.hash.slice(1)))); } catch { /* no state in the address */ }
}

/** The talk as it stood, without how sure each word was. */
function recall({ set, talks, votes: counted }) {
  apply(set);
  for (const side of sides) { // by the model's name: a blind test may have changed the places
    const at = talks.findIndex((talk) => talk.model === side.select.value);
    const { said = [], line = "" } = at < 0 ? {} : talks.splice(at, 1)[0];
    if (!said.length) continue;
    side.talk.replaceChildren();
    for (const { role, content } of said) say(side, role, role === "user" ? t.you : label(side), content);
    side.history = said;
    side.answer = said.at(-1).content;
    side.line.textContent = line;
    side.element.querySelector(".side-keep").hidden = !side.answer;
  }
  votes = counted;
  tally();
}

$("as-code").addEventListener("click", () => {
  try {
    const side = sides.at(-1);
    const history = side.history.length ? side.history.slice(0, -1) : [{ role: "user", content: $("message").value || "…" }];
    const body = request(side, history);
    $("curl").textContent = asCurl(location.origin, body);
    $("python").textContent = asPython(location.origin, body);
    $("code").showModal();
  } catch (error) { complain(error); }
});
$("add").addEventListener("click", () => { addSide(); remember(); about(); });
$("stop").addEventListener("click", () => stopper?.abort());
$("clear").addEventListener("click", () => {
  stopper?.abort();
  for (const side of sides) {
    Object.assign(side, { history: [], answer: "" });
    side.talk.replaceChildren($("side").content.querySelector(".talk > p").cloneNode(true));
    side.line.textContent = "";
    side.element.querySelector(".side-keep").hidden = true;
  }
  unasked();
});
$("blind").addEventListener("change", () => { if (!$("blind").checked) unasked(); });
$("draw").addEventListener("click", () => vote(null));
$("probabilities").addEventListener("change", () => { $("sure-legend").hidden = !$("probabilities").checked; });
$("diff").addEventListener("change", () => { if ($("diff").checked) differ(); });
$("system").addEventListener("input", () => { $("system").dataset.touched = "1"; word(); });
for (const id of ["temperature", "top_p", "max_tokens", "seed"]) $(id).addEventListener("input", word);
$("restore").addEventListener("click", () => { $("system").value = system ?? ""; delete $("system").dataset.touched; word(); });
$("message").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); } });

for (const model of JSON.parse(page.dataset.asked)) addSide(model);
if (!sides.length) addSide();
restore();
const kept = recalled();
if (kept) recall(kept);
keepFor(() => ({ set: settled(), talks: sides.map((side) => ({ model: side.select.value, said: side.history, line: side.line.textContent })), votes }));
addEventListener("hashchange", restore);
about();
