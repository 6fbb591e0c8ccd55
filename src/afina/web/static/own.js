// What one side of the playground has of its own. An empty number follows the parameters for all;
// the system prompt is its own where the box is ticked, an empty one too.
import { fill, language, number } from "./app.js";

export const NUMBERS = { temperature: "temperature", top_p: "top_p", max_tokens: "max_completion_tokens", seed: "seed" };
const shown = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });
const WHOLE = new Set(["max_tokens", "seed"]);

/** The numbers in these fields by the API's names; throws the reader's own sentence for a wrong one. */
export function numbersIn(fieldOf, t) {
  const found = {};
  for (const [name, param] of Object.entries(NUMBERS)) {
    const field = fieldOf(name);
    if (field.value !== "" || field.validity.badInput) check(field, name, t);
    if (field.value !== "") found[param] = Number(field.value);
  }
  return found;
}

function check(field, name, t) {
  if (field.validity.valid || (field.validity.stepMismatch && !WHOLE.has(name))) { field.removeAttribute("aria-invalid"); return; }
  field.setAttribute("aria-invalid", "true");
  const box = field.closest("details");
  if (box) box.open = true;
  field.focus();
  const error = new Error(fill(field.max ? t.number_wrong : t.number_low, { name: t[name], least: number(Number(field.min)), most: number(Number(field.max)) }));
  error.isOwn = true;
  throw error;
}

/** The part of a side's card where its own settings are; `changed` hears of every change. */
export function ownSettings(card, t, changed) {
  const box = card.querySelector(".side-own"), field = (name) => box.querySelector(`[data-own="${name}"]`);
  const ticked = field("own_system"), prompt = field("system"), word = box.querySelector(".side-own-word");
  let trained = null;

  function words() {
    const parts = Object.keys(NUMBERS).filter((name) => field(name).value !== "").map((name) => `${t[name]} ${shown.format(Number(field(name).value))}`);
    if (ticked.checked) parts.unshift(t.system);
    return parts.join(" · ");
  }
  function show() {
    prompt.closest(".field").hidden = !ticked.checked;
    word.textContent = words();
  }
  box.addEventListener("input", () => { show(); changed(); });
  card.querySelector(".side-trained").addEventListener("click", () => { ticked.checked = true; prompt.value = trained ?? ""; show(); changed(); });

  return {
    box,
    words,
    numbers: () => numbersIn(field, t),
    /** The system prompt of this side alone; null where it follows the one for all. */
    system: () => (ticked.checked ? prompt.value : null),
    /** Empty fields show what they follow; a prompt that the model wasn't trained with is named. */
    follow(commonOf, system, trainedWith) {
      trained = trainedWith;
      for (const name of Object.keys(NUMBERS)) field(name).placeholder = commonOf(name).value;
      const used = ticked.checked ? prompt.value : system;
      card.querySelector(".side-other").hidden = trained === null || used.trim() === trained.trim();
    },
    state() {
      const kept = Object.keys(NUMBERS).filter((name) => field(name).value !== "").map((name) => [name, field(name).value]);
      if (ticked.checked) kept.push(["system", prompt.value]);
      return Object.fromEntries(kept);
    },
    restore(state) {
      for (const name of Object.keys(NUMBERS)) if (typeof state?.[name] === "string") field(name).value = state[name];
      ticked.checked = typeof state?.system === "string";
      if (ticked.checked) prompt.value = state.system;
      box.open = Object.keys(state ?? {}).length > 0;
      show();
    },
  };
}
