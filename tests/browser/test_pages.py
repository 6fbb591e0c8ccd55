"""Every page in both themes and widths: axe finds nothing, nothing runs that came in as text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.browser.reader import Reader
from tests.live import LivePlatform

pytestmark = pytest.mark.slow
PLACES = (
    "/", "/data", "/data/answers", "/tune", "/jobs", "/models", "/playground",
    "/playground/table", "/usage", "/settings", "/nowhere",
)  # fmt: skip
BARD = Path(__file__).parents[2] / "examples" / "bard" / "questions.csv"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SEEDS = (
    "<script>{0}</script>",
    "<img src=x onerror={0}>",
    "<svg onload={0}>",
    '"><script>{0}</script>',
    "'><img src=x onerror={0}>",
    "<iframe srcdoc='<script>parent.{0}</script>'>",
    "<a href='javascript:{0}'>x</a>",
    "</textarea><script>{0}</script>",
    "</option></select><img src=x onerror={0}>",
    "<details open ontoggle={0}>",
    "<math><mtext></mtext><script>{0}</script></math>",
    "<body onload={0}>",
    "<input autofocus onfocus={0}>",
    "<video><source onerror={0}></video>",
    "<style>@import 'x'</style><script>{0}</script>",
    "{{{{constructor.constructor('{0}')()}}}}",
    "<div hx-on:load={0} hx-get=/ hx-trigger=load>",
    "<template><script>{0}</script></template>",
    "<object data='data:text/html,<script>{0}</script>'>",
    "<marquee onstart={0}>",
)
CALLS = ("alert(1)", "window.ran=1", "confirm(1)", "eval('alert(1)')", "top['al'+'ert'](1)")
PAYLOADS = [seed.format(call) for seed in SEEDS for call in CALLS]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_and_nothing_runs_over_the_edge(
    chromium: Any, platform: LivePlatform, theme: str, width: int
) -> None:
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None, "axe-playwright-python is missing: make test-browser installs it"
    assert found.origin is not None
    axe = (Path(found.origin).parent / "axe.min.js").read_text()
    with Reader(chromium, platform, "pt", theme, width, bypass_policy=True) as reader:
        reader.go("/data")
        reader.page.set_input_files("#file", str(BARD))
        reader.page.wait_for_selector(".row.bad")
        draft = "/" + reader.page.url.split("/", 3)[3]
        for path in (*PLACES, draft):
            reader.go(path)
            reader.page.wait_for_load_state("networkidle")
            reader.page.evaluate(axe)
            result = reader.page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
            faults = [(v["id"], v["nodes"][0]["target"]) for v in result["violations"]]
            assert faults == [], path
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert reader.page.evaluate(over) <= 0, path


def test_a_hundred_hostile_texts_run_nowhere(reader: Reader) -> None:
    assert len(set(PAYLOADS)) == 100
    page = reader.page
    lines = "\n".join('"{}","{}"'.format(*2 * [p.replace('"', '""')]) for p in PAYLOADS)
    name = PAYLOADS[0].replace("/", "_") + ".csv"
    reader.go("/data")
    sheet = {"name": name, "mimeType": "text/csv", "buffer": f"question,answer\n{lines}".encode()}
    page.set_input_files("#file", files=[sheet])
    page.wait_for_selector(".row")
    for top in range(0, 100 * 88, 500):
        page.evaluate("top => document.getElementById('rows').scrollTo(0, top)", top)
    reader.go("/playground/table")
    page.set_input_files("#file", files=[sheet])
    page.wait_for_selector("#body tr")
    reader.go("/playground")
    page.fill("#max_tokens", "1")
    for payload in PAYLOADS[::10]:
        page.fill("#message", payload)
        page.click("#send")
        page.wait_for_selector("#stop", state="hidden")
        page.click("#clear")
    for payload in PAYLOADS[::5]:
        reader.go(f"/jobs?which={payload.replace('%', '%25').replace('#', '%23')}")
    assert page.evaluate("window.ran") is None
    assert reader.complaints == []


def test_the_first_page_comes_within_100_ms_and_150_kb(reader: Reader) -> None:
    reader.go("/")
    timing = "performance.getEntriesByType('navigation')[0]"
    took = []
    for _ in range(5):
        reader.go("/")
        took.append(reader.page.evaluate(f"{timing}.responseEnd - {timing}.requestStart"))
    assert min(took) < 100
    weight = "performance.getEntries().reduce((sum, e) => sum + (e.encodedBodySize || 0), 0)"
    assert reader.page.evaluate(weight) < 150_000
