"""The server goes away while a page is open: nothing that was typed is lost, and the page goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.alone import Served, serving
from tests.browser.reader import Reader
from tests.browser.states import furnish
from tests.platforms import BASE
from tests.tiny import make_tiny_model
from tests.unit.web.site import Site

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000
BARD = Path(__file__).parents[2] / "examples" / "bard" / "questions.csv"
AWAY = {"en": "does not answer", "es": "no responde", "pt": "não responde"}
BACK = "!document.documentElement.classList.contains('away')"


def own_complaints(reader: Reader) -> list[str]:
    """What the console said, but for htmx, which notes there each request that nobody answered."""
    return [said for said in reader.complaints if not said.startswith("htmx:")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The pages alone, with a job at work and a base."""

    def fill(site: Site) -> None:
        furnish(site, tmp_path / "scratch")
        make_tiny_model(site.platform.settings.models / BASE, base_id=BASE)

    (tmp_path / "scratch").mkdir()
    with serving(tmp_path / "data", fill) as live:
        yield live


@pytest.mark.parametrize("language", ["en", "es", "pt"])
def test_what_was_typed_survives_a_server_that_goes_and_comes(
    chromium: Any, served: Served, language: str
) -> None:
    with Reader(chromium, served.as_platform(), language, width=360) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go("/data")
        page.set_input_files("#file", str(BARD))
        page.wait_for_selector(".row.bad")
        page.click(".row.bad .mend")
        page.fill("#part-1", "Marry, 'tis so.")
        served.stop()
        page.click("#editor-form .primary")
        page.wait_for_selector("#editor-error:not([hidden])")
        assert AWAY[language] in page.inner_text("#editor-error")
        assert page.get_attribute("#editor-error", "lang") == language
        assert AWAY[language] in page.inner_text("#offline")
        served.start()
        reader.wait("the server is found again", BACK)
        page.click("#editor-form .primary")
        page.wait_for_selector("#summary .good")
        page.click("#summary form .primary")
        page.wait_for_selector("#estimate dl")
        page.fill("#suffix", "kept")
        served.stop()
        page.click("aside .primary")
        page.wait_for_selector("#offline.warn:not([hidden])")
        assert page.input_value("#suffix") == "kept", "the form is still there"
        page.click("nav a[href='/jobs']")
        assert "/tune" in page.url, "no link leads into the void"
        served.start()
        reader.wait("the server is found again", BACK)
        page.click("aside .primary")
        page.wait_for_url("**/jobs/ftjob-*")
        assert own_complaints(reader) == []


def test_a_list_goes_on_when_the_server_is_back(chromium: Any, served: Served) -> None:
    with Reader(chromium, served.as_platform()) as reader:
        reader.page.set_default_timeout(PATIENCE_MS)
        reader.go("/jobs")
        served.stop()
        reader.page.wait_for_selector("#offline.warn:not([hidden])")
        served.start()
        with reader.page.expect_response("**/jobs?which=*") as asked:
            reader.wait("the server is found again", BACK)
        assert asked.value.status == 200
        assert own_complaints(reader) == []
