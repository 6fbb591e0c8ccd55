"""How quick and how light the pages are: python -m benchmarks.pages --data DATA, beside `afina up`.

    first page    milliseconds from request to last byte, the bytes over the wire, and requests
    curve         100,000 points drawn in a job's page, until the browser has painted them
    watchers      share of a core that the api takes for 50 open job pages, while a job trains
    hostile       100 texts that try to run, as prompts of the table and as rows: how many ran
    shift         the largest layout shift of a page while it loads (at most 0.1 is good)
    axe           violations on every page, in both themes, at 1280 and 360 pixels

Needs chromium and requirements/browser.txt. Run it on a quiet machine; it makes one job and
cancels it.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

PLACES = (
    "/", "/data", "/tune", "/jobs", "/models", "/playground", "/playground/table", "/usage",
    "/settings", "/nowhere",
)  # fmt: skip
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CALLS = ("alert(1)", "window.ran=1", "confirm(1)", "eval('alert(1)')", "top['al'+'ert'](1)")
SEEDS = (
    "<script>{0}</script>", "<img src=x onerror={0}>", "<svg onload={0}>",
    '"><script>{0}</script>', "'><img src=x onerror={0}>", "<a href='javascript:{0}'>x</a>",
    "<iframe srcdoc='<script>parent.{0}</script>'>", "</textarea><script>{0}</script>",
    "</option></select><img src=x onerror={0}>", "<details open ontoggle={0}>",
    "<math><mtext></mtext><script>{0}</script></math>", "<body onload={0}>",
    "<input autofocus onfocus={0}>", "<video><source onerror={0}></video>",
    "<style>@import 'x'</style><script>{0}</script>", "{{{{constructor('{0}')()}}}}",
    "<div hx-on:load={0} hx-get=/ hx-trigger=load>", "<template><script>{0}</script></template>",
    "<object data='data:text/html,<script>{0}</script>'>", "<marquee onstart={0}>",
)  # fmt: skip
POINTS = 100_000
CURVE = """async (count) => {
  const own = document.querySelector('script[src*="job.js"]').src;
  const address = own.replace('job.js', 'curves.js');
  const { curves, smooth } = await import(address);
  const place = document.createElement('div');
  place.className = 'curve';
  document.querySelector('main').append(place);
  const steps = Array.from({ length: count }, (_, i) => i + 1);
  const loss = steps.map((i) => 3 / Math.sqrt(i) + Math.sin(i * 12.9898) * 0.1);
  const took = [];
  for (let round = 0; round < 5; round++) {
    const chart = curves(place, ['loss', 'mean'], { step: 'step' });
    await new Promise((next) => setTimeout(next, 100));
    const start = performance.now();
    chart.show([steps, loss, smooth(loss)]);
    await new Promise((next) => setTimeout(next, 0));
    took.push(performance.now() - start);
    chart.destroy();
  }
  return took;
}"""


class Server:
    """The running platform of a data directory."""

    def __init__(self, data: Path) -> None:
        told = json.loads((data / "server.json").read_text())
        self.url = str(told["url"]).rstrip("/")
        self.key = (data / "api-key").read_text().strip()
        self.pid = int(told["pid"])

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        """An answer's JSON."""
        connection = http.client.HTTPConnection(self.url.partition("//")[2], timeout=60)
        headers = {"authorization": f"Bearer {self.key}"} | ({"content-type": kind} if kind else {})
        connection.request(method, path, body, headers)
        return json.loads(connection.getresponse().read())

    def api(self) -> psutil.Process:
        """The process that serves the pages."""
        children = psutil.Process(self.pid).children()
        return next(p for p in children if "api" in p.cmdline()[:4])

    def job(self) -> str:
        """A new job with rows enough to last."""
        row = '{"messages":[{"role":"user","content":"q%d"},{"role":"assistant","content":"a"}]}\n'
        part = (
            '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x\r\n'
            'Content-Disposition: form-data; name="file"; filename="b.jsonl"\r\n\r\n'
            + "".join(row % i for i in range(200))
            + "\r\n--x--\r\n"
        )
        kind = "multipart/form-data; boundary=x"
        file = self.ask("POST", "/v1/files", part.encode(), kind)["id"]
        base = self.ask("GET", "/v1/models")["data"][0]["id"]
        asked = {
            "model": base,
            "training_file": file,
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}},
        }
        body = json.dumps(asked).encode()
        return str(self.ask("POST", "/v1/fine_tuning/jobs", body, "application/json")["id"])


def first_page(page: Page, server: Server) -> str:
    """Of twenty visits, the bytes with an empty cache."""
    entries = "performance.getEntries().filter((e) => e.encodedBodySize !== undefined)"
    page.goto(server.url + "/", wait_until="networkidle")
    weight = page.evaluate(f"{entries}.reduce((sum, e) => sum + e.encodedBodySize, 0)")
    count = page.evaluate(f"{entries}.length")
    took, painted = [], []
    for _ in range(20):
        page.goto(server.url + "/", wait_until="load")
        timing = "performance.getEntriesByType('navigation')[0]"
        took.append(page.evaluate(f"{timing}.responseEnd - {timing}.requestStart"))
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
        painted.append(page.evaluate(paint))
    return (
        f"first page: {statistics.median(took):.1f} ms (least {min(took):.1f}, most "
        f"{max(took):.1f}), painted after {statistics.median(painted):.0f} ms; "
        f"{weight:,} bytes in {count} requests"
    )


def watchers(server: Server, job: str, cookie: str, count: int, seconds: float) -> str:
    """Streams as job pages open them, and what the api's process takes for them."""
    api = server.api()
    wait_until = time.monotonic() + 120
    while server.ask("GET", f"/v1/fine_tuning/jobs/{job}")["status"] != "running":
        if time.monotonic() > wait_until:
            break
        time.sleep(1)

    def share() -> float:
        before = api.cpu_times()
        time.sleep(seconds)
        after = api.cpu_times()
        return float(after.user + after.system - before.user - before.system) / seconds

    alone = share()
    stopped, bytes_read = threading.Event(), [0] * count
    connections = []

    def follow(place: int) -> None:
        connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=60)
        connections.append(connection)
        connection.request("GET", f"/jobs/{job}/live", headers={"cookie": cookie})
        answer = connection.getresponse()
        while not stopped.is_set():
            try:
                bytes_read[place] += len(answer.read1(65536))
            except (OSError, ValueError, AttributeError):
                return

    threads = [threading.Thread(target=follow, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    busy = share()
    stopped.set()
    state = server.ask("GET", f"/v1/fine_tuning/jobs/{job}")["status"]
    return (
        f"watchers: {count} open pages of a job ({state}) take {(busy - alone) * 100:.1f} % of a "
        f"core (the api takes {alone * 100:.1f} % without them), {sum(bytes_read):,} bytes in all"
    )


def hostile(page: Page, server: Server) -> str:
    """Texts that try to run: as a draft's rows and name, and as prompts of the table."""
    payloads = [seed.format(call) for seed in SEEDS for call in CALLS]
    dialogs: list[str] = []

    def note(dialog: Any) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    lines = "\n".join('"{0}","{0}"'.format(p.replace('"', '""')) for p in payloads)
    name = payloads[0].replace("/", "_") + ".csv"
    sheet = {"name": name, "mimeType": "text/csv", "buffer": f"question,answer\n{lines}".encode()}
    page.goto(server.url + "/data")
    page.set_input_files("#file", files=[sheet])
    page.wait_for_selector(".row")
    for top in range(0, 100 * 88, 400):
        page.evaluate("top => document.getElementById('rows').scrollTo(0, top)", top)
        page.wait_for_timeout(30)
    page.goto(server.url + "/playground/table", wait_until="networkidle")
    page.set_input_files("#file", files=[sheet])
    page.wait_for_selector("#body tr")
    ran = page.evaluate("window.ran") is not None
    return f"hostile: {len(payloads)} texts, {len(dialogs) + ran} ran"


SHIFTS = """() => new Promise((told) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => told(sum), 500);
})"""


def shifts(page: Page, server: Server, job: str) -> str:
    """How far a page's parts move while it loads, on the page where they move most."""
    found = {}
    for path in (*PLACES, f"/jobs/{job}"):
        page.goto(server.url + path, wait_until="load")
        found[path] = float(page.evaluate(SHIFTS))
    worst = max(found, key=lambda path: found[path])
    return f"shift: {found[worst]:.4f} at most, on {worst.partition('ftjob')[0]}"


def axe(page: Page, server: Server, theme: str, width: int) -> list[str]:
    """What axe finds on every page."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None, "axe-playwright-python is missing"
    assert found.origin is not None
    script = (Path(found.origin).parent / "axe.min.js").read_text()
    faults = []
    for path in PLACES:
        page.goto(server.url + path, wait_until="networkidle")
        page.evaluate(script)
        result = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
        faults += [f"{path} {theme} {width}: {v['id']}" for v in result["violations"]]
    return faults


def main() -> None:
    """Prints every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    server = Server(parser.parse_args().data)
    seconds = parser.parse_args().seconds
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: apt-get install chromium"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def enter(theme: str = "light", width: int = 1280) -> Page:
            size = {"width": width, "height": 860}
            context = browser.new_context(viewport=size, color_scheme=theme, bypass_csp=True)
            page = context.new_page()
            page.goto(server.url + "/sign-in")
            page.fill("#key", server.key)
            page.keyboard.press("Enter")
            page.wait_for_url(server.url + "/")
            return page

        page = enter()
        fresh = browser.new_context(storage_state=page.context.storage_state()).new_page()
        print(first_page(fresh, server), flush=True)
        job = server.job()
        page.goto(f"{server.url}/jobs/{job}", wait_until="load")
        took = page.evaluate(CURVE, POINTS)
        print(
            f"curve: {POINTS:,} points, two lines, in {statistics.median(took):.0f} ms "
            f"(least {min(took):.0f}, most {max(took):.0f})",
            flush=True,
        )
        print(shifts(page, server, job), flush=True)
        cookie = "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())
        page.goto("about:blank")
        print(watchers(server, job, cookie, 50, seconds), flush=True)
        server.ask("POST", f"/v1/fine_tuning/jobs/{job}/cancel")
        # With the real policy, which is part of what holds them back.
        guarded = browser.new_context(storage_state=page.context.storage_state()).new_page()
        print(hostile(guarded, server), flush=True)
        faults = []
        for theme in ("light", "dark"):
            for width in (1280, 360):
                faults += axe(enter(theme, width), server, theme, width)
        print(f"axe: {len(faults)} violations on {len(PLACES) * 4} views", *faults, sep="\n  ")
        browser.close()


if __name__ == "__main__":
    main()
