// A job's page: its curves, and live news by server-sent events. EventSource comes back by itself
// after a restart of the server and says where it was; where it gives up, we begin again.
import { ask, fill, localTimes, number, span } from "./app.js";
import { offline } from "./away.js";
import { curves, smooth } from "./curves.js";

const page = document.getElementById("job");
const t = JSON.parse(page.dataset.texts);
const statuses = JSON.parse(page.dataset.statuses);
const id = page.dataset.job;
const place = document.getElementById("curve");
const points = new Map();
let job = JSON.parse(page.dataset.state), begin = job.status, which = "loss", chart = null, last = 0, wait = 500, rows = [];

const KINDS = { loss: [2, 4, 6], accuracy: [3, 5, 7] };

/** Steps come in order; one that comes again, after a resume, takes the place of the first. */
function add(found) {
  for (const point of found) {
    const known = points.has(point[0]);
    points.set(point[0], point);
    if (!known && !(rows.length && point[0] < rows.at(-1)[0])) rows.push(point);
    else rows = [...points.values()].sort((a, b) => a[0] - b[0]);
  }
}

function ends() {
  const epochs = Number(place.dataset.epochs), total = rows.at(-1)?.[1];
  return epochs > 1 && total ? Array.from({ length: epochs - 1 }, (_, i) => Math.round(total * (i + 1) / epochs)) : [];
}

function draw() {
  const none = document.getElementById("curve-none");
  none.hidden = rows.length > 0;
  none.textContent = none.dataset.none;
  if (!rows.length) return;
  const [train, valid, full] = KINDS[which].map((column) => rows.map((row) => row[column]));
  const names = [`${t.train}`, `${t.train}, ${t.smooth}`], columns = [train, smooth(train)], dots = [false, false], faint = [true, false];
  if (valid.some((v) => v != null)) { names.push(t.valid); columns.push(smooth(valid)); dots.push(false); faint.push(false); }
  if (full.some((v) => v != null)) { names.push(t.full_valid); columns.push(full); dots.push(true); faint.push(false); }
  const key = `${which} ${names.length}`;
  if (chart?.key !== key) {
    chart?.destroy();
    chart = curves(place, names, { ends, until: () => job.over ? 0 : rows.at(-1)[1], dots, faint, colours: names.map((_, i) => Math.max(0, i - 1)), percent: which === "accuracy", step: t.step });
    chart.key = key;
  }
  chart.show([rows.map((row) => row[0]), ...columns]);
  const now = rows.at(-1)?.[KINDS[which][0]];
  place.setAttribute("aria-label", fill(t.curve_label, { name: t[which], value: now == null ? "–" : number(now, 3) }));
}

function figures() {
  const now = rows.at(-1), bar = document.getElementById("bar"), word = document.getElementById("step");
  const doing = job.over || job.status === "paused" ? "" : t[`doing_${job.stage}`] ?? "";
  if (now) {
    const steps = fill(t.step_of, { step: number(now[0]), total: number(now[1]) });
    const last = job.stage === "training" ? t.doing_last : doing;
    word.textContent = doing && now[0] === now[1] ? `${steps} · ${last}` : steps;
    document.getElementById("loss").textContent = number(now[2], 3);
    bar.max = now[1]; bar.value = now[0];
  } else if (!job.over) {
    word.textContent = job.share == null ? doing || t.no_points : `${doing} ${number(job.share * 100)}\u00a0%`;
    bar.max = 1;
    if (job.share == null && job.status !== "queued" && job.status !== "paused") bar.removeAttribute("value"); else bar.value = job.share ?? 0;
  }
  tick();
}

function tick() {
  const time = document.getElementById("time"), speed = document.getElementById("speed");
  const now = rows.at(-1), tokens = Number(speed.dataset.tokens);
  if (job.over && job.started_at && job.finished_at) time.textContent = span(job.finished_at - job.started_at);
  else if (!job.over && (job.stage === "training" || job.stage === "queued") && job.estimated_finish) {
    const left = job.estimated_finish - Date.now() / 1000;
    time.textContent = left < 1 ? "…" : span(left);
  }
  else if (!job.over && (job.stage === "parity" || job.stage === "gate")) time.textContent = "…";
  if (now && job.started_at && tokens) {
    const until = job.finished_at ?? Date.now() / 1000;
    const seconds = until - job.started_at;
    if (seconds > 1 && (job.over || (job.stage === "training" && (now[0] < now[1] || speed.textContent === "–")))) speed.textContent = `${number(tokens * now[0] / now[1] / seconds)} ${t.per_second}`;
  }
}

function stages() {
  const items = [...document.querySelectorAll("#stages li")];
  let here = items.findIndex((item) => item.dataset.stage === job.stage);
  if (here < 0) return;
  items.forEach((item, i) => {
    const mark = i < here || job.status === "succeeded" ? "done" : i > here ? "ahead" : job.over ? "stopped" : "here";
    item.className = mark;
    item.toggleAttribute("aria-current", mark === "here");
    item.querySelector(".sr").textContent = ` (${t[`mark_${mark}`]})`;
  });
  const badge = document.querySelector("#badge .badge");
  badge.className = `badge ${job.status}`;
  badge.lastChild.textContent = statuses[job.status];
}

function say([seconds, level, message, spoken]) {
  const list = document.getElementById("events");
  const item = document.createElement("li");
  item.className = level;
  const time = document.createElement("time");
  time.dateTime = new Date(seconds * 1000).toISOString();
  const text = document.createElement("span");
  text.textContent = message;
  text.lang = spoken;
  item.append(time, text);
  localTimes(item);
  list.prepend(item);
}

function take(news) {
  job = news.job;
  add(news.points);
  news.events.forEach(say);
  if (news.points.length) draw();
  figures();
  stages();
  // What the server writes for another state (buttons, parity, cost) comes with the page itself.
  if (job.status !== begin && (job.over || job.status === "paused" || begin === "paused")) location.reload();
  if (job.status !== begin || news.events.length) for (const part of ["#job-head", "#details"]) window.htmx.trigger(part, "refresh");
  begin = job.status;
}

function listen() {
  const source = new EventSource(`/jobs/${id}/live?after=${last}`);
  source.onopen = () => { offline(false); wait = 500; };
  source.onmessage = (event) => {
    last = Number(event.lastEventId);
    take(JSON.parse(event.data));
    if (job.over) source.close();
  };
  source.onerror = () => {
    if (job.over) { source.close(); return; }
    if (source.readyState === EventSource.CLOSED) { setTimeout(listen, wait); wait = Math.min(wait * 2, 10000); }
    if (document.visibilityState === "visible") setTimeout(() => offline(source.readyState === EventSource.CONNECTING), 3000);
  };
}

for (const button of document.querySelectorAll("[data-curve]")) {
  button.addEventListener("click", () => {
    which = button.dataset.curve;
    for (const other of document.querySelectorAll("[data-curve]")) other.setAttribute("aria-pressed", other === button);
    draw();
  });
}

async function start() {
  try {
    const told = await (await ask(`/jobs/${id}/points`)).json();
    add(told.points);
    last = Math.max(Number(page.dataset.place), 0);
    if (told.place > last) last = Number(page.dataset.place);
  } catch { /* the stream brings them */ last = 0; }
  draw();
  figures();
  if (!job.over) { listen(); setInterval(tick, 1000); }
}
start();
