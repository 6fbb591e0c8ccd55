"""The quick ring: pages in a real browser, without engine or worker. Nothing here goes by a clock.

`make smoke` runs it in a few seconds, and the gate with it wherever chromium is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.alone import served_alone
from tests.browser.reader import Reader
from tests.live import LivePlatform

pytestmark = pytest.mark.slow
BARD = Path(__file__).parents[2] / "examples" / "bard" / "questions.csv"
PLACES = (
    "/", "/data", "/data/answers", "/tune", "/jobs", "/models", "/playground",
    "/playground/table", "/usage", "/settings", "/nowhere",
)  # fmt: skip
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """The pages alone, of an empty platform."""
    with served_alone(tmp_path_factory.mktemp("data")) as live:
        yield live


@pytest.mark.parametrize("language", ["en", "es", "pt"])
def test_every_page_opens_without_a_complaint_and_fits_a_telephone(
    chromium: Any, served: LivePlatform, language: str
) -> None:
    with Reader(chromium, served, language, width=360) as reader:
        reader.page.set_default_timeout(PATIENCE_MS)
        for path in PLACES:
            reader.go(path)
            assert reader.page.get_attribute("html", "lang") == language
            assert reader.page.locator("h1").count() == 1, path
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert reader.page.evaluate(over) <= 0, path
        assert reader.complaints == []
        assert reader.hosts == {reader.origin.removeprefix("http://")}


def test_the_bard_s_sheet_is_mended_undone_and_saved(chromium: Any, served: LivePlatform) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go("/data")
        page.set_input_files("#file", str(BARD))
        page.wait_for_selector(".row.bad")
        page.click(".row.bad .mend")
        page.fill("#part-1", "<img src=x onerror=alert(1)> Marry, 'tis so.")
        page.click("#editor-form .primary")
        page.wait_for_selector("#summary .good")
        page.click("[data-act=undo]")
        page.wait_for_selector(".row.bad")
        page.click("[data-act=redo]")
        page.wait_for_selector("#summary .good")
        page.click("#summary form .primary")
        page.wait_for_url("**/tune?file=*")
        assert "questions.jsonl" in str(page.text_content("#file option"))
        assert reader.complaints == []


def test_any_row_is_gone_to_by_its_number_and_by_a_link(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        lines = "\n".join(f"question {n},answer {n}" for n in range(1, 1501))
        sheet = f"question,answer\n{lines}\n".encode()
        reader.go("/data")
        page.set_input_files("#file", [{"name": "s.csv", "mimeType": "text/csv", "buffer": sheet}])
        page.wait_for_selector(".row")
        page.fill("#go-row", "1273")
        page.keyboard.press("Enter")
        page.wait_for_selector(".row.wanted")
        assert "answer 1273" in str(page.text_content(".row.wanted"))
        page.goto(page.url.partition("#")[0] + "#row-42")
        page.reload()
        page.wait_for_selector(".row.wanted")
        assert "answer 42" in str(page.text_content(".row.wanted"))
        assert reader.complaints == []
