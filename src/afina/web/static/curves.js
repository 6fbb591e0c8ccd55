// Curves over steps, drawn by uPlot (a canvas): colours from the stylesheet's tokens, marks at the
// ends of epochs, zoom by dragging. The figures are in the page's text too.
import { number } from "./app.js";

const COLOURS = ["--accent", "--second", "--ok", "--warn", "--bad", "--muted"];
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

/** A plot in `place`; `names` are its curves. `show(columns)` puts data in, steps first. */
export function curves(place, names, { ends = () => [], dots = [], faint = [], colours = names.map((_, i) => i), percent = false, step = "" } = {}) {
  const axis = () => ({ stroke: () => token("--muted"), grid: { stroke: () => token("--line"), width: 1 }, ticks: { stroke: () => token("--line"), width: 1 } });
  const write = (value) => value == null ? "–" : percent ? `${number(value * 100, 1)} %` : number(value, 3);
  const box = () => ({ width: Math.max(200, place.clientWidth), height: Math.max(160, place.clientHeight - 34) });
  const plot = new window.uPlot({
    ...box(),
    scales: { x: { time: false } },
    axes: [{ ...axis(), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000], values: (_, all) => all.map((v) => number(v)) }, { ...axis(), size: 56, values: (_, all) => all.map((v) => percent ? `${number(v * 100)} %` : number(v, 2)) }],
    series: [{ label: step, value: (_, v) => v == null ? "–" : number(v) }, ...names.map((name, i) => ({
      label: name,
      stroke: () => token(COLOURS[colours[i] % COLOURS.length]),
      width: faint[i] ? 1 : 2,
      alpha: faint[i] ? 0.35 : 1,
      spanGaps: true,
      paths: dots[i] ? () => null : undefined,
      points: dots[i] ? { show: true, size: 9, fill: () => token(COLOURS[colours[i] % COLOURS.length]) } : { show: false },
      value: (_, v) => write(v),
    }))],
    cursor: { drag: { x: true, y: false }, points: { size: 7 } },
    plugins: [epochMarks(ends)],
  }, [[], ...names.map(() => [])], place);
  new ResizeObserver(() => plot.setSize(box())).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  return {
    plot,
    show(columns) {
      const { min, max } = plot.scales.x;
      const all = plot.data[0];
      const zoomed = all.length > 1 && (min > all[0] || max < all.at(-1));
      plot.setData(columns, !zoomed);
      // Without a pointer over it, the legend says how things stand.
      const last = columns[0].length - 1;
      requestAnimationFrame(() => { if (plot.cursor.idx == null && last >= 0) plot.setLegend({ idx: last }, false); });
    },
    destroy() { plot.destroy(); },
  };
}

/** A running mean, so that the way of a noisy curve is seen. */
export function smooth(values, keep = 0.85) {
  let mean = null, weight = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = (mean ?? 0) * keep + value * (1 - keep);
    weight = weight * keep + (1 - keep);
    return mean / weight;
  });
}
