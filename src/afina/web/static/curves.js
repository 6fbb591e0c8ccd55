// Curves over steps, drawn by uPlot (a canvas): colours from the stylesheet's tokens, marks at the
// ends of epochs, zoom by dragging. The figures are in the page's text too. Of long runs the least
// and the most of each pixel's steps are drawn, and a zoom draws its own: nothing that would be seen
// is left out.
import { number } from "./app.js";

const COLOURS = ["--accent", "--second", "--ok", "--warn", "--bad", "--muted"];
const MOST = 4000;
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function epochMarks(ends) {
  return { hooks: { draw: [(plot) => {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = token("--line-strong");
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 4]);
    for (const step of ends()) {
      if (step < plot.scales.x.min || step > plot.scales.x.max) continue;
      const x = Math.round(plot.valToPos(step, "x", true));
      ctx.beginPath();
      ctx.moveTo(x, plot.bbox.top);
      ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }] } };
}

/** The first place in sorted `all` that is not below `value`. */
function placeOf(all, value) {
  let low = 0, high = all.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (all[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

/** Of the columns between two steps, what `pixels` columns of a picture can show: of each pixel's
    steps those with the least and the most of every curve. First and last step always stay. */
export function thin(columns, from, to, pixels) {
  const steps = columns[0], end = steps.length;
  const low = Math.max(0, placeOf(steps, from) - 1), high = Math.min(end, placeOf(steps, to) + 2);
  if (high - low <= Math.max(MOST, pixels)) {
    if (low === 0 && high === end) return columns;
    return columns.map((column) => [column[0], ...Array.prototype.slice.call(column, Math.max(low, 1), Math.min(high, end - 1)), column[end - 1]]);
  }
  const kept = [0], width = (high - low) / pixels, some = new Set();
  for (let pixel = 0; pixel < pixels; pixel++) {
    const start = Math.floor(low + pixel * width), stop = Math.min(high, Math.floor(low + (pixel + 1) * width));
    some.clear();
    for (let c = 1; c < columns.length; c++) {
      const column = columns[c];
      let least = -1, most = -1;
      for (let i = start; i < stop; i++) {
        const value = column[i];
        if (value == null) continue;
        if (least < 0 || value < column[least]) least = i;
        if (most < 0 || value > column[most]) most = i;
      }
      if (least >= 0) some.add(least).add(most);
    }
    for (const place of [...some].sort((a, b) => a - b)) if (place > kept.at(-1)) kept.push(place);
  }
  if (kept.at(-1) !== end - 1) kept.push(end - 1);
  return columns.map((column) => kept.map((place) => column[place]));
}

/** A plot in `place`; `names` are its curves. `show(columns)` puts data in, steps first. `until` says
    where a run ends that is still going on, so that its curve grows into the picture. */
export function curves(place, names, { ends = () => [], until = () => 0, dots = [], faint = [], colours = names.map((_, i) => i), percent = false, step = "" } = {}) {
  const axis = () => ({ stroke: () => token("--muted"), grid: { stroke: () => token("--line"), width: 1 }, ticks: { stroke: () => token("--line"), width: 1 } });
  const write = (value) => value == null ? "–" : percent ? `${number(value * 100, 1)} %` : number(value, 3);
  const tall = () => parseFloat(getComputedStyle(place).getPropertyValue("--plot")) * 16 || 320;
  const box = () => ({ width: Math.max(200, place.clientWidth), height: tall() });
  const colour = (i) => token(COLOURS[colours[i] % COLOURS.length]);
  let all = [[], ...names.map(() => [])], drawn = "";

  /** Puts in what the steps in sight need; anew only when others are in sight. */
  function fit(plot, min, max, isNew) {
    const key = `${min} ${max} ${plot.width}`;
    if (!isNew && key === drawn) return;
    drawn = key;
    plot.setData(thin(all, min, max, plot.width), false);
  }
  const plot = new window.uPlot({
    ...box(),
    scales: { x: { time: false } },
    legend: { markers: { width: 0, fill: (_, i) => i ? colour(i - 1) : "transparent" } },
    axes: [{ ...axis(), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000], values: (_, found) => found.map((v) => number(v)) }, { ...axis(), size: 56, values: (_, found) => found.map((v) => percent ? `${number(v * 100)} %` : number(v, 2)) }],
    series: [{ label: step, value: (_, v) => v == null ? "–" : number(v) }, ...names.map((name, i) => ({
      label: name,
      class: faint[i] ? "faint" : undefined,
      stroke: () => colour(i),
      width: faint[i] ? 1 : 2,
      alpha: faint[i] ? 0.4 : 1,
      spanGaps: true,
      paths: dots[i] ? () => null : undefined,
      points: dots[i] ? { show: true, size: 9, fill: () => colour(i) } : { show: (plot) => plot.data[0].length < 3, size: 6, fill: () => colour(i) },
      value: (_, v) => write(v),
    }))],
    cursor: { drag: { x: true, y: false }, points: { size: 7 } },
    hooks: { setScale: [(plot, key) => {
      if (key !== "x" || all[0].length <= MOST) return;
      const { min, max } = plot.scales.x;
      requestAnimationFrame(() => { if (plot.scales.x.min === min && plot.scales.x.max === max) fit(plot, min, max, false); });
    }] },
    plugins: [epochMarks(ends)],
  }, all, place);
  let size = "";
  const resized = new ResizeObserver(() => {
    const now = box(), key = `${now.width} ${now.height}`;
    if (key !== size) { size = key; plot.setSize(now); }
  });
  resized.observe(place);
  const dark = matchMedia("(prefers-color-scheme: dark)"), redraw = () => plot.redraw();
  dark.addEventListener("change", redraw);
  return {
    plot,
    show(columns) {
      const { min, max } = plot.scales.x;
      const zoomed = all[0].length > 1 && (min > all[0][0] || max < all[0].at(-1));
      all = columns;
      const last = columns[0].length - 1;
      if (zoomed) fit(plot, min, max, true);
      else {
        const from = columns[0][0], to = Math.max(columns[0][last], until(), from + 1);
        drawn = `${from} ${to} ${plot.width}`;
        plot.batch(() => { plot.setData(thin(columns, -Infinity, Infinity, plot.width), false); plot.setScale("x", { min: from, max: to }); });
      }
      // Without a pointer over it, the legend says how things stand.
      requestAnimationFrame(() => { if (plot.cursor.idx == null && last >= 0) plot.setLegend({ idx: plot.data[0].length - 1 }, false); });
    },
    destroy() { resized.disconnect(); dark.removeEventListener("change", redraw); plot.destroy(); },
  };
}

/** A running mean, over more of a longer run, so that the way of a noisy curve is seen. */
export function smooth(values, keep = Math.max(0.85, 1 - 100 / values.length)) {
  let mean = null, weight = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = (mean ?? 0) * keep + value * (1 - keep);
    weight = weight * keep + (1 - keep);
    return mean / weight;
  });
}
