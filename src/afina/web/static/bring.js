// Brings a file to the server: dropped anywhere on the page, or chosen. The bytes go as they are,
// with a bar that has a true end; leaving the page before the end leaves nothing behind.
import { tell, fill, texts } from "./app.js";
import { offline } from "./away.js";

const place = document.getElementById("drop");
const input = document.getElementById("file");
const bar = document.getElementById("progress");
const word = document.getElementById("reading");

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
    tell([told.error?.message ?? request.statusText, told.error?.remedy].filter(Boolean).join(" "));
  };
  request.onerror = () => { rest(); offline(true); };
  bar.hidden = false;
  word.hidden = false;
  word.textContent = fill(place.dataset.reading, { name: file.name });
  request.send(file);
}

function rest() { bar.hidden = true; word.hidden = true; input.value = ""; }

input.addEventListener("change", () => { if (input.files[0]) bring(input.files[0]); });
for (const kind of ["dragenter", "dragover"]) {
  window.addEventListener(kind, (event) => { event.preventDefault(); place.classList.add("over"); });
}
window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) place.classList.remove("over"); });
window.addEventListener("drop", (event) => {
  event.preventDefault();
  place.classList.remove("over");
  if (event.dataTransfer.files[0]) bring(event.dataTransfer.files[0]);
});
document.querySelector("[data-example]")?.addEventListener("click", async (event) => {
  try {
    const answer = await fetch(event.target.dataset.example);
    bring(new File([await answer.blob()], "bard.csv"));
  } catch { offline(true); }
});
