"""The newcomer's walk on the starter model, as it is for somebody who installed afina a minute ago:
from the empty page to the compared answer and the cost, in each language, within three minutes and
fifteen clicks.

Wants a machine that has little else to do: the walk trains. `make test-browser` fetches the
starter. Times and clicks of each part are written to `walk.json` beside the test's data.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.reader import Reader
from tests.live import LivePlatform

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BARD = ROOT / "examples" / "bard" / "questions.csv"
HERE = ROOT / ".afina"
AFFORDABLE_S = 180
AFFORDABLE_CLICKS = 15
PATIENCE_MS = 600_000
"""Beyond what is affordable, so that a slow walk is told by its parts and not by a time-out."""
AS_INSTALLED = {
    "AFINA_TRAINING__PRECISION": "auto",
    "AFINA_TRAINING__THREADS": "0",
    "AFINA_ENGINE__THREADS": "0",
}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[LivePlatform]:
    """The platform as it is after its installation: the starter, and nothing of anybody's."""
    if not (HERE / "models" / "smollm2-135m-instruct" / "afina.json").exists():
        pytest.fail("the starter model is missing: make starter fetches it")
    data = tmp_path / "data"
    for kind in ("models", "encoders"):
        if (HERE / kind).exists():
            shutil.copytree(HERE / kind, data / kind)
    with LivePlatform(data, AS_INSTALLED) as live:
        yield live


class Walk:
    """What each part took."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.parts: dict[str, tuple[float, int]] = {}
        self._reader = reader
        self._folder = folder
        self._began = time.monotonic()

    def passes(self, part: str) -> None:
        """A part is over: its time since the beginning, its clicks, its picture."""
        self.parts[part] = (round(time.monotonic() - self._began, 1), self._reader.clicks)
        self._reader.page.screenshot(path=self._folder / f"{len(self.parts)}-{part}.png")


@pytest.mark.parametrize("language", ["en", "es", "pt"])
def test_a_newcomer_tunes_the_starter_and_compares_within_three_minutes(
    chromium: Any, empty: LivePlatform, language: str, tmp_path: Path
) -> None:
    with Reader(chromium, empty, language) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        walk = Walk(reader, tmp_path)
        assert page.get_attribute("html", "lang") == language
        reader.click(".hero .primary")
        drop(page, BARD)
        reader.clicks += 1  # a file that is let go counts as one
        page.wait_for_selector(".row.bad")
        walk.passes("dropped")
        reader.click(".row.bad .mend")
        page.fill("#part-1", "Marry, 'tis to leave the lesson ere it be learned by rote.")
        reader.click("#editor-form .primary")
        page.wait_for_selector("#summary .good")
        walk.passes("mended")
        reader.click("#summary form .primary")
        page.wait_for_selector("#estimate dl")
        page.fill("#suffix", "bard")
        walk.passes("estimated")
        reader.click("aside .primary")
        page.wait_for_url("**/jobs/ftjob-*")
        loss = "parseFloat(document.getElementById('loss').textContent.replace(',', '.'))"
        reader.wait("the first step is on the page", f"{loss} > 0", AFFORDABLE_S)
        first = float(page.evaluate(loss))
        page.wait_for_selector("#curve canvas")
        walk.passes("watching")
        page.wait_for_selector(".badge.succeeded")
        reader.wait("the curve has its end", "document.getElementById('bar').value >= 39")
        assert float(page.evaluate(loss)) < first, "the loss fell before the reader's eyes"
        walk.passes("tuned")
        reader.click(".head a.primary")
        page.wait_for_selector(".side-card >> nth=1")
        page.fill("#message", "What is a perceptron?")
        reader.click("#send")
        answered = (
            r"[...document.querySelectorAll('.figures-line')].every(l => /\d/.test(l.innerText))"
        )
        reader.wait("both models have answered", answered, AFFORDABLE_S)
        walk.passes("compared")
        said = page.locator(".bubble.assistant .said-text").all_inner_texts()
        reader.click("nav a[href='/usage']")
        page.wait_for_selector("tfoot")
        walk.passes("cost")
        (tmp_path / "walk.json").write_text(json.dumps({"language": language, **walk.parts}))
        assert len(said) == 2
        assert said[0] != said[1], "the tune speaks in its own manner"
        trained = str(page.locator("tfoot td").nth(1).inner_text())
        assert int(re.sub(r"\D", "", trained)) > 15_000, "the ledger has the training"
        assert walk.parts["compared"][0] < AFFORDABLE_S, walk.parts
        assert walk.parts["cost"][1] < AFFORDABLE_CLICKS, walk.parts
        assert reader.complaints == []
        assert reader.hosts == {reader.origin.removeprefix("http://")}


def drop(page: Any, file: Path) -> None:
    """Lets a file go over the page, as a hand does."""
    page.wait_for_selector("#drop")
    carried = page.evaluate_handle(
        """([name, bytes]) => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], name));
          return carried;
        }""",
        [file.name, list(file.read_bytes())],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", kind, {"dataTransfer": carried})
