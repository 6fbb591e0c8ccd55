// The server may go away while a page is open. The page says so at its foot, keeps what was typed,
// looks for the server until it is back, and then goes on by itself. Who waits for that hears
// `afina:back` on the document.
const word = document.getElementById("offline");
const texts = JSON.parse(document.body.dataset.texts || "{}");
const LOOK_MS = 1500, SAID_MS = 4000;
const failed = new Map(), asking = new WeakSet(), checked = new WeakSet();

export const isAway = () => document.documentElement.classList.contains("away");

/** An error that tells the reader, in their language, that nobody answered. */
export const awayError = () => Object.assign(new Error(texts.offline_kept), { isOwn: true, isAway: true });

/** Resolves when the server is back, or when `signal` is aborted. */
export const back = (signal) => new Promise((resolve) => {
  if (!isAway()) { resolve(); return; }
  document.addEventListener("afina:back", resolve, { once: true });
  signal?.addEventListener("abort", resolve, { once: true });
});

/** Shows that the server does not answer, or that it does again. */
export function offline(is) {
  if (!word || is === isAway()) return;
  document.documentElement.classList.toggle("away", is);
  word.className = `away-word notice ${is ? "warn" : "ok"}`;
  word.textContent = is ? texts.offline : texts.back;
  word.hidden = false;
  if (is) { setTimeout(look, LOOK_MS); return; }
  setTimeout(() => { word.hidden = !isAway(); }, SAID_MS);
  document.dispatchEvent(new Event("afina:back"));
  for (const [element, asked] of failed) if (element.isConnected) window.htmx.ajax(asked.verb, asked.path, { source: element });
  failed.clear();
}

async function answers() {
  try { await fetch(document.querySelector("link[rel=icon]").href, { method: "HEAD", cache: "no-store" }); return true; } catch { return false; }
}

async function look() {
  if (!isAway()) return;
  if (await answers()) offline(false);
  else setTimeout(look, LOOK_MS);
}

document.addEventListener("htmx:sendError", ({ detail }) => {
  failed.set(detail.elt, detail.requestConfig);
  offline(true);
});
document.addEventListener("htmx:afterRequest", ({ detail }) => { if (detail.successful) offline(false); });

// A form is sent only where somebody takes it: else the browser would show its own page of an error
// in place of what was typed.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") !== "post" || checked.delete(form)) return;
  event.preventDefault();
  if (asking.has(form)) return;
  asking.add(form);
  const is = await answers();
  asking.delete(form);
  offline(!is);
  if (!is) return;
  checked.add(form);
  form.requestSubmit(event.submitter);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]"), here = location.pathname + location.search;
  if (isAway() && link?.origin === location.origin && link.pathname + link.search !== here) event.preventDefault();
});
