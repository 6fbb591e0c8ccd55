"""Mending a draft by hand: what would throw edits away asks first, what does not keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.alone import served_alone
from tests.browser.reader import Reader
from tests.live import LivePlatform

pytestmark = pytest.mark.slow
SHEET = b"question,answer,other\n" + b"".join(b"q%d,a%d,o%d\n" % (n, n, n) for n in range(12))
LONG = "a" * 200 + ".csv"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """The pages alone."""
    with served_alone(tmp_path_factory.mktemp("data")) as live:
        yield live


def test_edits_outlive_a_system_prompt_and_other_columns_are_asked_about(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served, width=360) as reader:
        page = reader.page
        page.set_default_timeout(120_000)
        reader.go("/data")
        sheet = {"name": LONG, "mimeType": "text/csv", "buffer": SHEET}
        page.set_input_files("#file", files=[sheet])
        page.click(".row .mend >> nth=0")
        page.fill("#part-1", "Mended by hand.")
        page.click("#editor-form .primary")
        page.wait_for_selector("[data-act=undo]:not([disabled])")
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(over) <= 0, "a long name stays on the page"
        page.fill("#system", "Be brief.")
        page.keyboard.press("Tab")
        page.wait_for_selector(".bubble.system")
        assert "Mended by hand." in page.locator(".row .answered").first.inner_text()
        page.select_option("#assistant", "other")
        page.wait_for_selector("#sure[open]")
        page.keyboard.press("Escape")
        reader.wait(
            "the choice is taken back", "document.getElementById('assistant').value === 'answer'"
        )
        assert page.is_enabled("[data-act=undo]")
        page.select_option("#assistant", "other")
        page.click("#sure-yes")
        page.wait_for_selector("[data-act=undo][disabled]")
        assert page.locator(".row .answered").first.inner_text() == "o0"
        page.select_option("#assistant", "answer")
        reader.wait(
            "nothing to lose, nothing asked",
            "document.querySelector('.row .answered')?.textContent === 'a0'",
        )
        assert reader.complaints == []


def test_a_refused_choice_shows_what_holds_and_its_reason_goes_with_the_next_answer(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(30_000)
        reader.go("/data")
        sheet = {"name": "q.csv", "mimeType": "text/csv", "buffer": SHEET}
        page.set_input_files("#file", files=[sheet])
        page.wait_for_selector(".row")
        page.select_option("#assistant", "question")
        page.wait_for_selector("#notices .bad")
        assert page.input_value("#assistant") == "answer"
        page.select_option("#assistant", "other")
        page.wait_for_selector("#notices .bad", state="detached")
        assert page.input_value("#assistant") == "other"


def test_a_check_that_takes_a_while_is_said_and_a_second_click_does_nothing(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served, "es") as reader:
        page = reader.page
        page.set_default_timeout(120_000)
        reader.go("/data")
        sheet = {"name": "q.csv", "mimeType": "text/csv", "buffer": SHEET}
        page.set_input_files("#file", files=[sheet])
        page.click(".row .mend >> nth=0")
        held: list[Any] = []
        page.route("**/rows/1", lambda route: held.append(route))
        page.click("#editor-form .primary")
        page.wait_for_selector("#editor .checking")
        assert "Se revisan de nuevo" in page.inner_text("#editor .checking")
        page.click("#editor-form .primary")
        assert len(held) == 1
        held[0].continue_()
        page.wait_for_selector("#editor:not([open])", state="attached")
        assert page.locator(".checking:visible").count() == 0
        assert reader.complaints == []


def test_on_a_narrow_screen_nothing_is_cut_and_a_draft_goes_from_the_list(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served, "es", width=360) as reader:
        page = reader.page
        page.set_default_timeout(30_000)
        reader.go("/data")
        rows = b"".join(
            b"what is the hour sir?,it is three and you know it %d\n" % n for n in range(30)
        )
        sheet = {
            "name": "narrow.csv",
            "mimeType": "text/csv",
            "buffer": b"question,answer\n" + rows,
        }
        page.set_input_files("#file", files=[sheet])
        page.wait_for_selector(".row:has(.say + .say)")
        brand, links = (page.locator(f".side {what}").bounding_box() for what in (".brand", "form"))
        assert abs(brand["y"] - links["y"]) < brand["height"], "name and links share a line"
        whole = (
            "[...document.querySelectorAll('.row')].every((row) => [...row.querySelectorAll('.say,"
            " button')].every((one) => one.getBoundingClientRect().bottom <="
            " row.getBoundingClientRect().bottom && one.offsetHeight > 0))"
        )
        assert page.evaluate(whole), "no line is half a line, no button is cut"
        said = page.locator(".row:has(.say + .say) .beside").first
        title = str(said.get_attribute("title")).split("\n")
        assert title == said.locator(".say").all_inner_texts(), "what is cut short is whole there"
        reader.go("/data")
        page.click("tr:has-text('narrow.csv') .danger")
        page.click("#sure-yes")
        page.wait_for_selector("tr:has-text('narrow.csv')", state="detached")
        assert reader.complaints == []


def test_a_file_dropped_on_any_page_is_brought_and_a_page_with_a_file_of_its_own_takes_it(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(30_000)
        reader.go("/jobs")
        drop(page, "anywhere.csv")
        page.wait_for_url("**/data/draft-*")
        assert page.inner_text("h1") == "anywhere.csv"
        reader.go("/playground/table")
        drop(page, "prompts.csv")
        page.wait_for_selector("#body tr")
        assert page.url.partition("?")[0].endswith("/playground/table")
        reader.go("/settings")
        page.evaluate(
            "dispatchEvent(new DragEvent('dragover', {dataTransfer: new DataTransfer()}))"
        )
        assert page.locator("body.over").count() == 0, "a text that is dragged is not a file"
        assert reader.complaints == []


def test_one_file_comes_at_a_time_and_what_is_none_is_called_what_it_is(
    chromium: Any, served: LivePlatform, tmp_path: Path
) -> None:
    """Several at once, another while one is on its way, a folder, a file that is gone: none of
    them starts a request, and none of them means that the server is away."""
    with Reader(chromium, served, language="es") as reader:
        page = reader.page
        page.set_default_timeout(30_000)
        reader.go("/data")
        sent: list[Any] = []
        page.route("**/data?name=*", lambda route: sent.append(route))
        drop(page, "one.csv", "two.csv")
        page.wait_for_selector("#notices :text('de uno en uno')")
        folder = tmp_path / "carpeta"
        folder.mkdir()
        drop_path(page, folder)
        page.wait_for_selector("#notices :text('carpeta es una carpeta')")
        gone = tmp_path / "gone.csv"
        gone.write_bytes(SHEET)
        choose_path(page, gone)
        assert page.evaluate("document.getElementById('file').files[0].size") == len(SHEET)
        gone.unlink()
        page.dispatch_event("#file", "change")
        page.wait_for_selector("#notices :text('gone.csv no se puede leer')")
        assert not sent
        drop(page, "first.csv")
        page.wait_for_selector("#reading:has-text('first.csv')")
        drop(page, "second.csv")
        page.wait_for_selector("#notices :text('first.csv se está leyendo todavía')")
        assert page.is_visible("#reading")
        assert len(sent) == 1
        assert page.locator("html.away").count() == 0
        sent[0].continue_()
        page.wait_for_url("**/data/draft-*")
        assert page.inner_text("h1") == "first.csv"
        page.unroute("**/data?name=*")
        page.go_back()
        drop(page, "third.csv")
        page.wait_for_url("**/data/draft-*")
        assert page.inner_text("h1") == "third.csv"
        assert reader.complaints == []


def choose_path(page: Any, path: Path) -> None:
    """Chooses a file on the disk, of which the page does not hear yet."""
    page.evaluate(
        "addEventListener('change', (event) => event.stopImmediatePropagation(),"
        " {capture: true, once: true})"
    )
    hand = page.context.new_cdp_session(page)
    found = hand.send("Runtime.evaluate", {"expression": "document.getElementById('file')"})
    chosen = {"files": [str(path)], "objectId": found["result"]["objectId"]}
    hand.send("DOM.setFileInputFiles", chosen)


def drop_path(page: Any, path: Path) -> None:
    """Lets what lies on the disk go over a page: a page's own script cannot carry a folder."""
    box = page.locator("main").bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 200}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    hand = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        hand.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def drop(page: Any, *names: str) -> None:
    """Lets sheets go over the middle of a page, as a hand does."""
    carried = page.evaluate_handle(
        """([names, text]) => {
          const carried = new DataTransfer();
          for (const name of names) carried.items.add(new File([text], name));
          return carried;
        }""",
        [names, SHEET.decode()],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("main", kind, {"dataTransfer": carried})


def test_a_broken_line_and_a_question_without_an_answer_are_mended_in_their_place(
    chromium: Any, served: LivePlatform
) -> None:
    good = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
    asked = '{"messages": [{"role": "user", "content": "only asked"}]}'
    raw = "\n".join([good[:-2], asked, good]).encode()
    with Reader(chromium, served, width=1280) as reader:
        page = reader.page
        page.set_default_timeout(120_000)
        reader.go("/data")
        rows = {"name": "rows.jsonl", "mimeType": "application/jsonl", "buffer": raw}
        page.set_input_files("#file", files=[rows])
        page.click(".row .mend >> nth=0")
        assert page.input_value("#part-0") == good[:-2]
        page.fill("#part-0", good.replace('"q"', '"mended"'))
        page.click("#editor-form .primary")
        page.wait_for_selector("[data-act=undo]:not([disabled])")
        page.select_option("#which", "all")
        reader.wait("its words", "document.querySelector('.row .said')?.textContent === 'mended'")
        second = page.locator(".row").nth(1)
        assert second.locator(".said").inner_text() == "only asked"
        second.locator(".mend").click()
        assert page.input_value("#part-1") == "", "a box for the answer that is not there"
        page.fill("#part-1", "an answer")
        page.click("#editor-form .primary")
        reader.wait(
            "the answer",
            "document.querySelectorAll('.row .answered')[1]?.textContent === 'an answer'",
        )
        assert reader.complaints == []
