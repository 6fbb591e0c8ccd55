"""The newcomer's walk: from the empty page to the compared answer, in each language."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.browser.reader import Reader
from tests.live import LivePlatform, chats

pytestmark = pytest.mark.slow
BARD = Path(__file__).parents[2] / "examples" / "bard" / "questions.csv"
AFFORDABLE_S = 180
AFFORDABLE_CLICKS = 15


@pytest.mark.parametrize("language", ["en", "es", "pt"])
def test_a_newcomer_tunes_and_compares_within_three_minutes_and_fifteen_clicks(
    chromium: Any, platform: LivePlatform, language: str
) -> None:
    with Reader(chromium, platform, language) as reader:
        page, started = reader.page, time.monotonic()
        assert page.get_attribute("html", "lang") == language
        reader.click("nav a[href='/data']")
        reader.clicks += 1  # the file is chosen or dropped
        page.set_input_files("#file", str(BARD))
        page.wait_for_selector(".row.bad")
        reader.click(".row.bad .mend")
        page.fill("#part-1", "Marry, 'tis to leave the lesson ere it be learned by rote.")
        reader.click("#editor-form .primary")
        page.wait_for_selector("#summary .good")
        reader.click("#summary form .primary")
        page.wait_for_url("**/tune?file=*")
        page.wait_for_selector("#estimate dl")
        page.fill("#suffix", f"bard-{language}")
        reader.click("aside .primary")
        page.wait_for_url("**/jobs/ftjob-*")
        page.wait_for_selector(".badge.succeeded", timeout=150_000)
        page.wait_for_selector("#curve canvas")
        reader.click(".head a.primary")
        page.wait_for_selector(".side-card >> nth=1")
        page.fill("#max_tokens", "8")
        page.fill("#message", "What is a neural network?")
        reader.click("#send")
        answered = (
            "[...document.querySelectorAll('.figures-line')].every(l => /\\d/.test(l.innerText))"
        )
        reader.wait("both models have answered", answered)
        assert page.locator(".bubble.failed").count() == 0
        assert reader.clicks < AFFORDABLE_CLICKS
        assert time.monotonic() - started < AFFORDABLE_S
        assert reader.complaints == []
        assert reader.hosts == {reader.origin.removeprefix("http://")}


def test_live_news_go_on_over_a_restart_of_the_server(
    reader: Reader, platform: LivePlatform
) -> None:

    job = platform.create_job(platform.upload(chats(60)), "restart", n_epochs=12)
    reader.go(f"/jobs/{job}")
    reader.wait("the job is at work", "document.getElementById('bar').value >= 2")
    platform.kill("api")
    reader.page.wait_for_selector(".badge.succeeded", timeout=150_000)
    assert "successfully" in reader.page.text_content("#events")


def test_a_file_of_prompts_is_scored_and_an_answer_is_kept(reader: Reader) -> None:
    page = reader.page
    reader.go("/playground/table")
    sheet = b"question,answer\nwhat says the fox?,the fox jumps\n<b>no</b>,=1+1\n"
    page.set_input_files("#file", [{"name": "p.csv", "mimeType": "text/csv", "buffer": sheet}])
    page.wait_for_selector("#body tr >> nth=1")
    page.fill("#max_tokens", "6")
    page.click("#run")
    page.wait_for_selector("#export", timeout=120_000)
    cells = page.locator("#scores tr").first.locator("td").all_inner_texts()
    assert cells[1] == "2", "both prompts are answered"
    assert cells[-1] == "0", "none failed"
    likelihood = float(cells[4].replace("\u2212", "-"))
    assert -30 < likelihood < 0, "a mean of natural logarithms of shares"
    with page.expect_download() as download:
        page.click("#export")
    assert '"\'=1+1"' in Path(download.value.path()).read_text("utf-8-sig")
    page.click(".marks button")
    page.fill("#keep-1", "Mended.")
    page.click("#keep-form .primary")
    page.wait_for_selector("#notices a")
    page.click("#notices a")
    page.wait_for_selector(".row")
    assert "Mended." in str(page.text_content(".row .answered"))
    assert reader.complaints == []
