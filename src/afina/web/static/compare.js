// Curves of several jobs in one picture: one colour a job, loss, validation or accuracy.
import { ask, complain, number } from "./app.js";
import { curves, smooth } from "./curves.js";

const place = document.getElementById("curve");
const KINDS = { loss: [2], valid: [6, 4], accuracy: [3] };
const buttons = [...document.querySelectorAll("[data-curve]")];
let told = [], chart = null;

const valueOf = (point, which) => KINDS[which].map((column) => point[column]).find((value) => value != null) ?? null;

function draw(which) {
  const t = JSON.parse(place.dataset.texts);
  const some = told.map((one) => one.points.filter((point) => valueOf(point, which) !== null));
  const steps = [...new Set(some.flatMap((points) => points.map((point) => point[0])))].sort((a, b) => a - b);
  const columns = some.map((points) => {
    const by = new Map(points.map((point) => [point[0], valueOf(point, which)]));
    return smooth(steps.map((step) => by.get(step) ?? null), which === "valid" ? 0 : 0.85);
  });
  chart?.destroy();
  const none = document.getElementById("curve-none");
  none.hidden = steps.length > 0;
  chart = steps.length ? curves(place, told.map((one) => one.name), { step: t.step, percent: which === "accuracy" }) : null;
  chart?.show([steps, ...columns]);
  for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.curve === which);
}

function finals() {
  for (const one of told) {
    for (const which of ["loss", "valid"]) {
      const cell = document.querySelector(`[data-job="${CSS.escape(one.id)}"][data-final="${which}"]`);
      const last = one.points.map((point) => valueOf(point, which)).filter((value) => value !== null).at(-1);
      if (cell && last !== undefined) cell.textContent = number(last, 3);
    }
  }
}

if (place) {
  try {
    told = await Promise.all(JSON.parse(place.dataset.jobs).map(async (id) => ({ id, ...await (await ask(`/jobs/${id}/points`)).json() })));
    finals();
    draw("loss");
  } catch (error) { complain(error); }
  for (const button of buttons) button.addEventListener("click", () => draw(button.dataset.curve));
}
