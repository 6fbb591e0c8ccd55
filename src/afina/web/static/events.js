// What the platform says of a job is English on the wire; the sentences that are known are shown in
// the reader's language. What is not known stays as it is, and is marked as English.
import { language } from "./app.js";

const known = JSON.parse(document.getElementById("events")?.dataset.known ?? "[]").map(([english, own]) => {
  const names = [];
  const pattern = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+)\}/g, (_, name) => { names.push(name); return "(.+?)"; });
  return { pattern: new RegExp(`^${pattern}$`), names, own };
});

/** Puts the reader's language in the place of an English sentence in `element`. */
export function translate(element) {
  if (language === "en") return;
  const said = element.textContent;
  for (const { pattern, names, own } of known) {
    const found = pattern.exec(said);
    if (!found) continue;
    const values = Object.fromEntries(names.map((name, i) => [name, found[i + 1]]));
    element.textContent = own.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
    element.lang = language;
    return;
  }
}
