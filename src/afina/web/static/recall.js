// What stood on a page comes back when its reader does: after a reload, and on the way back. It stays
// in this tab, and is forgotten at the sign-in.

const KEY = `afina:${location.pathname}`;

/** What was kept of this page, where its reader comes back to it by its address; else null. */
export function recalled() {
  const how = performance.getEntriesByType("navigation")[0]?.type;
  if (how !== "reload" && how !== "back_forward") return null;
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY));
    return kept?.place === location.search + location.hash ? kept.state : null;
  } catch { return null; }
}

/** Keeps what `state` gives when the page goes away. */
export function keepFor(state) {
  addEventListener("pagehide", () => {
    const place = location.search + location.hash;
    try { sessionStorage.setItem(KEY, JSON.stringify({ place, state: state() })); } catch { /* too much to keep: the page begins anew */ }
  });
}
