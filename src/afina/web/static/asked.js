// The models that the table asks, each with settings of its own. The same model may stand there
// twice, asked in two ways.
import { ask, fill } from "./app.js";
import { numbersIn, ownSettings } from "./own.js";

const page = document.getElementById("table");
const t = JSON.parse(page.dataset.texts), words = JSON.parse(page.dataset.own);
const MOST = Number(page.dataset.most);
const $ = (id) => document.getElementById(id);
const sides = [];

function addModel(name) {
  const element = $("model").content.firstElementChild.cloneNode(true);
  const side = { element, select: element.querySelector("select"), trained: null };
  side.own = ownSettings(element, words, follow);
  if (name) side.select.value = name;
  element.querySelector(".pair button").addEventListener("click", () => { sides.splice(sides.indexOf(side), 1); element.remove(); count(); });
  side.select.addEventListener("change", () => { remember(); about(side); });
  sides.push(side);
  $("models").append(element);
  count();
  return about(side);
}

function count() {
  sides.forEach((side, i) => {
    const name = fill(t.model, { n: i + 1 });
    side.select.setAttribute("aria-label", name);
    side.own.box.setAttribute("aria-label", `${words.own}: ${name}`);
    side.element.querySelector(".pair button").hidden = sides.length === 1;
  });
  $("add").hidden = sides.length >= MOST;
  remember();
}

function remember() { history.replaceState(null, "", `?${new URLSearchParams(sides.map((side) => ["model", side.select.value]))}`); }

/** The system prompt that a model was trained with: for all, unless the reader wrote another. */
async function about(side) {
  side.trained = null;
  try {
    side.trained = (await (await ask(`/playground/about?model=${encodeURIComponent(side.select.value)}`)).json()).system;
  } catch { /* the model is gone: asking it will say so */ }
  if (side.trained && !$("system").dataset.touched) $("system").value = side.trained;
  follow();
}

function follow() { for (const side of sides) side.own.follow($, $("system").value, side.trained); }

/** The models to ask, once each where they are asked alike: name, label, numbers, system prompt, and
    what of it is their own in words. Throws the reader's own sentence for a wrong number. */
export function chosen() {
  const all = sides.filter((side) => side.select.value).map((side) => ({
    name: side.select.value,
    label: side.select.selectedOptions[0].textContent.trim(),
    own: side.own.words(),
    system: side.own.system() ?? $("system").value,
    numbers: { ...numbersIn($, words), ...side.own.numbers() },
  }));
  const keys = all.map(({ name, system, numbers }) => JSON.stringify([name, system, numbers]));
  return all.filter((_, i) => keys.indexOf(keys[i]) === i);
}

$("add").addEventListener("click", () => addModel());
$("system").addEventListener("input", () => { $("system").dataset.touched = "1"; follow(); });
for (const id of ["temperature", "top_p", "max_tokens", "seed"]) $(id).addEventListener("input", follow);
for (const name of JSON.parse(page.dataset.asked)) addModel(name);
if (!sides.length) addModel();
