// Brings a file to the server: dropped anywhere on any page, or chosen. The bytes go as they are,
// with a bar that has a true end; leaving the page before the end leaves nothing behind. Where a
// page takes a file of its own, it gets what is dropped.
import { tell, fill, texts } from "./app.js";
import { offline } from "./away.js";

const place = document.getElementById("drop");
const input = document.getElementById("file");
const box = document.getElementById("bringing");
const bar = (place ?? box).querySelector("progress");
const word = (place ?? box).querySelector("[role=status]");

function bring(file) {
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
  request.onerror = () => { rest(); offline(true); };
  box.hidden = Boolean(place);
  bar.hidden = false;
  word.hidden = false;
  word.textContent = fill(texts.reading, { name: file.name });
  request.send(file);
}

function rest() { box.hidden = true; bar.hidden = true; word.hidden = true; if (input) input.value = ""; }

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
  const { files } = event.dataTransfer;
  if (!files[0] || document.querySelector("dialog[open]")) return;
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
