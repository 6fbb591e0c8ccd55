// The training loss of several jobs in one picture.
import { ask, tell } from "./app.js";
import { curves, smooth } from "./curves.js";

const place = document.getElementById("curve");
if (place) {
  const t = JSON.parse(place.dataset.texts);
  try {
    const told = await Promise.all(JSON.parse(place.dataset.jobs).map(async (id) => (await ask(`/jobs/${id}/points`)).json()));
    const steps = [...new Set(told.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
    const columns = told.map((one) => {
      const by = new Map(one.points.map((point) => [point[0], point[2]]));
      return smooth(steps.map((step) => by.get(step) ?? null));
    });
    curves(place, told.map((one) => one.name), { step: t.step }).show([steps, ...columns]);
  } catch (error) { tell(error.message); }
}
