// Brings a file to the server: dropped anywhere on any page, or chosen. The bytes go as they are,
// with a bar that has a true end; leaving the page before the end leaves nothing behind. Where a
// page takes a file of its own, it gets what is dropped. One file at a time: a page goes to its draft.
import { tell, fill, texts } from "./app.js";
import { offline } from "./away.js";

const place = document.getElementById("drop");
const input = document.getElementById("file");
const box = document.getElementById("bringing");
const bar = (place ?? box).querySelector("progress");
const word = (place ?? box).querySelector("[role=status]");

let coming = ""; // the name of the file that is on its way

async function bring(file) {
  if (coming) { refuse("still_reading", coming); return; }
  coming = file.name;
  if (!(await isReadable(file))) { rest(); refuse("unreadable", file.name); return; }
  const request = new XMLHttpRequest();
  request.open("POST", `/data?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("accept", "application/json");
  request.setRequestHeader("content-type", "application/octet-stream");
  request.setRequestHeader("x-form-token", document.body.dataset.token);
  request.upload.onprogress = (event) => { bar.max = event.total; bar.value = event.loaded; };
  request.onload = () => {
    let told = {};
    try { told = JSON.parse(request.responseText); } catch { /* the status says enough */ }
    if (request.status === 200) { location.assign(told.href); return; }
    rest();
    if (request.status === 401) { tell(texts.session_over, "bad", null, null); return; }
    tell([told.error?.message ?? request.statusText, told.error?.remedy].filter(Boolean).join(" "), "bad", null, told.error?.lang ?? "en", told.error?.exactly);
  };
  request.onerror = async () => {
    rest();
    if (await isReadable(file)) offline(true);
    else refuse("unreadable", file.name);
  };
  box.hidden = Boolean(place);
  bar.hidden = false;
  word.hidden = false;
  word.textContent = fill(texts.reading, { name: file.name });
  request.send(file);
}

const refuse = (text, name) => tell(fill(texts[text], { name }), "bad", null, null);

/** Whether its bytes can be had: not those of a folder, nor of a file that was changed meanwhile. */
const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

function rest() { coming = ""; box.hidden = true; bar.hidden = true; word.hidden = true; if (input) input.value = ""; }

window.addEventListener("pageshow", (event) => { if (event.persisted) rest(); });
if (place) input.addEventListener("change", () => { if (input.files[0]) bring(input.files[0]); });
const target = place ?? document.body;
const brings = (event) => event.dataTransfer?.types.includes("Files"); // a text goes into its field
for (const kind of ["dragenter", "dragover"]) {
  window.addEventListener(kind, (event) => { if (brings(event)) { event.preventDefault(); target.classList.add("over"); } });
}
window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) target.classList.remove("over"); });
window.addEventListener("drop", (event) => {
  if (!brings(event)) return;
  event.preventDefault();
  target.classList.remove("over");
  const { files, items } = event.dataTransfer;
  if (!files[0] || document.querySelector("dialog[open]")) return;
  if (files.length > 1) { refuse("one_file"); return; }
  const isFolder = [...items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  if (isFolder) { refuse("a_folder", files[0].name); return; }
  if (place || !input) { bring(files[0]); return; }
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
document.querySelector("[data-example]")?.addEventListener("click", async (event) => {
  try {
    const answer = await fetch(event.target.dataset.example);
    bring(new File([await answer.blob()], "bard.csv"));
  } catch { offline(true); }
});
