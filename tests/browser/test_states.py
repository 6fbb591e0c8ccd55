"""Jobs in every state, in both themes and widths: readable, whole, translated, and still."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.alone import served_alone
from tests.browser.reader import Reader
from tests.browser.states import furnish
from tests.live import LivePlatform
from tests.unit.web.site import Site

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OTHERS = ("/", "/data", "/jobs", "/models", "/playground", "/usage", "/settings")
SHIFTS = """() => new Promise((told) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => told(sum), 300);
})"""
THIN = """async (count) => {
  const own = document.querySelector('script[src*="job.js"]').src;
  const { thin } = await import(own.replace('job.js', 'curves.js'));
  const steps = Array.from({ length: count }, (_, i) => i + 1);
  const loss = steps.map((i) => 2 + Math.sin(i * 12.9898));
  loss[77777] = 9; loss[33333] = -9;
  const all = thin([steps, loss], -Infinity, Infinity, 1000);
  const near = thin([steps, loss], 33300, 33400, 1000);
  return { count: all[0].length, most: Math.max(...all[1]), least: Math.min(...all[1]),
           first: all[0][0], last: all[0].at(-1), near: near[0].length,
           sorted: all[0].every((step, i) => i === 0 || step > all[0][i - 1]) };
}"""


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[LivePlatform, dict[str, str]]]:
    """The pages alone, with a job in each state."""
    found: dict[str, str] = {}

    def fill(site: Site) -> None:
        found.update(furnish(site, tmp_path_factory.mktemp("scratch")))

    with served_alone(tmp_path_factory.mktemp("data"), fill) as live:
        yield live, found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_state_of_a_job_is_readable_and_moves_nothing(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]], theme: str, width: int
) -> None:
    served, states = places
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None, "axe-playwright-python is missing: make test-browser installs it"
    assert found.origin is not None
    axe = (Path(found.origin).parent / "axe.min.js").read_text()
    with Reader(chromium, served, "es", theme, width, bypass_policy=True) as reader:
        reader.page.set_default_timeout(PATIENCE_MS)
        for path in (*states.values(), *OTHERS):
            reader.go(path)
            assert reader.page.evaluate(SHIFTS) < 0.1, f"{path} moves while it is read"
            reader.page.evaluate(axe)
            result = reader.page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
            faults = [(v["id"], v["nodes"][0]["target"]) for v in result["violations"]]
            assert faults == [], path
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert reader.page.evaluate(over) <= 0, path
        assert reader.complaints == []


def test_what_the_platform_says_of_a_job_is_read_in_the_reader_s_language(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]]
) -> None:
    served, states = places
    with Reader(chromium, served, "pt") as reader:
        reader.page.set_default_timeout(PATIENCE_MS)
        reader.go(states["succeeded"])
        reader.page.wait_for_selector("#events span[lang=pt]")
        said = reader.page.locator("#events span").all()
        assert {one.get_attribute("lang") for one in said} == {"pt"}
        reader.go(states["failed"])
        why = reader.page.locator("main > * .notice.bad, main > .notice.bad").first
        assert "Linha 41 do arquivo de treino: Uma mensagem está vazia" in why.inner_text()
        assert "a message is empty" in str(why.locator("details [lang=en]").text_content())
        reader.go(states["preparing"])
        reader.wait(
            "the share", "document.getElementById('step').textContent.includes('42\u00a0%')"
        )


def test_what_cannot_be_undone_is_asked_once_more(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]]
) -> None:
    served, states = places
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go(states["failed"])
        page.click("#job-head .danger")
        page.wait_for_selector("#sure[open]")
        assert page.evaluate("document.activeElement.dataset.close") == "sure"
        page.keyboard.press("Escape")
        page.wait_for_selector("#sure:not([open])", state="attached")
        assert page.url.endswith(states["failed"]), "nothing was deleted"


def test_a_long_curve_is_drawn_from_its_least_and_its_most(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]]
) -> None:
    served, states = places
    with Reader(chromium, served) as reader:
        reader.page.set_default_timeout(PATIENCE_MS)
        reader.go(states["succeeded"])
        reader.page.wait_for_selector("#curve canvas")
        found = reader.page.evaluate(THIN, 100_000)
        assert found["count"] <= 2002
        assert (found["least"], found["most"]) == (-9, 9), "no peak is lost"
        assert (found["first"], found["last"]) == (1, 100_000)
        assert found["sorted"]
        assert 100 <= found["near"] <= 110, "what is looked at closely is whole"


def test_a_search_is_heard_however_its_words_came_and_stays_over_a_reload(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]]
) -> None:
    served, _ = places
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go("/jobs")
        names = "[...document.querySelectorAll('#list .name')].map(e => e.innerText.trim()).join()"
        page.fill("[name=q]", "broken")  # as a paste does: no key goes up
        reader.wait("one is left", f"{names} === 'broken-rows'")
        page.reload()
        assert page.evaluate(names) == "broken-rows"
        page.fill("[name=q]", "")
        reader.wait("all are back", f"{names}.includes('bard')")
        assert reader.complaints == []


def test_every_number_of_a_scenario_counts_at_once_and_a_wrong_one_promises_nothing(
    chromium: Any, places: tuple[LivePlatform, dict[str, str]]
) -> None:
    served, _ = places
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go("/usage")
        costs = "document.getElementById('costs').innerText"
        before = page.evaluate(costs)
        page.fill("#epochs", "30")
        reader.wait("another field than the first is heard", f"{costs} !== {before!r}")
        seen = "getComputedStyle(document.getElementById('costs')).visibility"
        assert page.evaluate(seen) == "visible"
        for wrong in ("", "-5", "1.5"):
            page.fill("#epochs", wrong)
            assert page.evaluate(seen) == "hidden", wrong
        assert reader.complaints == []
