"""The playground without an engine: what each side asks, by keyboard, in a link, and wrong numbers.

The page's own requests are caught on their way, so that what would be asked is seen whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.browser.alone import served_alone
from tests.browser.reader import Reader
from tests.browser.states import furnish
from tests.live import LivePlatform

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000
ANSWER = (
    'data: {"choices":[{"delta":{"content":"Well met."},"finish_reason":"stop"}]}\n\n'
    'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """The pages alone, with a base and a tuned model."""

    def fill(site: Any) -> None:
        furnish(site, tmp_path_factory.mktemp("scratch"), keep_base=True)

    with served_alone(tmp_path_factory.mktemp("data"), fill) as live:
        yield live


def hear(page: Any) -> list[dict[str, Any]]:
    """Answers in the engine's place; gives what was asked."""
    asked: list[dict[str, Any]] = []

    def answer(route: Any) -> None:
        asked.append(json.loads(route.request.post_data))
        route.fulfill(status=200, content_type="text/event-stream", body=ANSWER)

    page.route("**/playground/answer", answer)
    return asked


@pytest.mark.parametrize("language", ["en", "es", "pt"])
def test_each_side_asks_with_its_own_settings_and_a_link_carries_them(
    chromium: Any, served: LivePlatform, language: str
) -> None:
    with Reader(chromium, served, language) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        asked = hear(page)
        reader.go("/playground")
        page.wait_for_selector(".side-card >> nth=1")
        page.fill("#temperature", "0.5")
        page.fill("#system", "You are a clerk.")
        second = page.locator(".side-card").nth(1)
        second.locator(".side-own summary").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("0")
        assert second.locator("[data-own=temperature]").input_value() == "0", "by keyboard alone"
        second.locator("[data-own=seed]").fill("7")
        second.locator("[data-own=max_tokens]").fill("12")
        second.locator("[data-own=own_system]").check()
        second.locator("[data-own=system]").fill("You are a bard.")
        assert "7" in second.locator(".side-own-word").inner_text(), "closed, it still says so"
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.click("#share")
        page.wait_for_selector("#notices .ok")
        reader.go("/jobs")
        page.goto(page.evaluate("navigator.clipboard.readText()"))
        page.fill("#message", "Good morrow?")
        page.click("#send")
        reader.wait("both have answered", "document.querySelectorAll('.said-text').length === 4")
        first, other = sorted(asked, key=lambda one: one.get("seed") == 7)
        assert first["temperature"] == 0.5
        assert first["messages"][0] == {"role": "system", "content": "You are a clerk."}
        assert (other["temperature"], other["max_completion_tokens"], other["seed"]) == (0, 12, 7)
        assert other["messages"][0] == {"role": "system", "content": "You are a bard."}
        assert reader.complaints == []


def test_a_wrong_number_of_one_side_is_named_and_nothing_is_asked(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served, "es") as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        asked = hear(page)
        reader.go("/playground")
        page.wait_for_selector(".side-card >> nth=1")
        page.locator(".side-own summary").first.click()
        page.locator("[data-own=temperature]").first.fill("9")
        page.fill("#message", "¿Qué tal?")
        page.click("#send")
        page.wait_for_selector("#notices .bad")
        assert "Temperatura" in page.inner_text("#notices")
        assert page.locator("#notices [lang=en]").count() == 0
        assert page.evaluate("document.activeElement.dataset.own") == "temperature"
        assert page.input_value("#message") == "¿Qué tal?", "what was typed survives"
        assert asked == []


def test_a_link_with_texts_of_others_shows_them_as_text(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        hostile = "<img src=x onerror=window.ran=1>"
        state = {"system": hostile, "sides": [{"system": hostile, "seed": hostile}, 5, None]}
        reader.go("/playground#" + json.dumps(state))
        reader.page.wait_for_selector(".side-card")
        assert reader.page.locator("[data-own=system]").first.input_value() == hostile
        assert reader.page.evaluate("window.ran") is None
        assert reader.complaints == []


def test_the_table_asks_one_model_in_two_ways(chromium: Any, served: LivePlatform) -> None:
    with Reader(chromium, served, "pt") as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        asked = hear(page)
        reader.go("/playground/table")
        page.wait_for_selector(".asked >> nth=1")
        names = page.locator(".asked select")
        names.nth(1).select_option(names.nth(0).input_value())
        sheet = {"name": "p.csv", "mimeType": "text/csv", "buffer": b"question\nWell met?\n"}
        page.set_input_files("#file", files=[sheet])
        page.wait_for_selector("#body tr")
        assert page.locator("#head th").count() == 4, "asked alike, it is asked once"
        page.fill("#system", "You are a clerk.")
        second = page.locator(".asked").nth(1)
        second.locator(".side-own summary").click()
        second.locator("[data-own=temperature]").fill("3")
        page.click("#run")
        page.wait_for_selector("#notices .bad")
        assert asked == [], "a wrong number is named, and nothing asked"
        second.locator("[data-own=temperature]").fill("1.5")
        second.locator("[data-own=own_system]").check()
        second.locator("[data-own=system]").fill("You are a bard.")
        page.click("#run")
        page.wait_for_selector("#export:not([hidden])")
        first, other = sorted(asked, key=lambda one: one["temperature"])
        assert (first["temperature"], other["temperature"]) == (0, 1.5)
        assert first["model"] == other["model"]
        assert first["messages"][0]["content"] == "You are a clerk."
        assert other["messages"][0]["content"] == "You are a bard."
        assert "1,5" in page.locator("#scores tr").nth(1).inner_text()
        assert reader.complaints == []


def test_a_talk_outlives_a_reload_and_the_way_back_and_its_question_goes_along_in_a_link(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        asked = hear(page)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        reader.go("/playground")
        page.wait_for_selector(".side-card >> nth=1")
        place = page.locator("#ask").bounding_box()
        page.check("#diff")
        page.fill("#message", "Good morrow?")
        page.click("#send")
        said = "[...document.querySelectorAll('.side-keep')].filter(b => !b.hidden).length === 2"
        reader.wait("both have answered", said)
        assert page.locator("#ask").bounding_box() == place, "answers push nothing away"
        for way in ("reload", "back"):
            if way == "back":
                reader.go("/usage")
            page.evaluate("way => way === 'back' ? history.back() : location.reload()", way)
            page.wait_for_load_state()
            reader.wait("the talk is back", said)
            assert page.locator(".said-text").all_inner_texts() == ["Good morrow?", "Well met."] * 2
            assert page.is_checked("#diff")
        page.fill("#message", "And thou?")
        page.click("#send")
        reader.wait("it goes on", "document.querySelectorAll('.said-text').length === 8")
        assert [m["content"] for m in asked[-1]["messages"]] == [
            "Good morrow?",
            "Well met.",
            "And thou?",
        ]
        page.click("#share")
        page.wait_for_selector("#notices .ok")
        link = page.evaluate("navigator.clipboard.readText()")
        page.click("#clear")
        assert page.locator(".side-keep:visible, .side-vote:visible, #draw:visible").count() == 0
        assert page.locator(".said-text").count() == 0
        reader.go("/jobs")
        page.goto(link)
        page.wait_for_selector(".side-card >> nth=1")
        assert page.input_value("#message") == "Good morrow?"
        assert page.is_checked("#diff")
        assert page.locator(".said-text").count() == 0, "a link carries the question, no talk"
        assert reader.complaints == []


def test_a_model_that_is_gone_and_a_session_that_is_over_are_told_in_the_reader_s_language(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served, "pt") as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        reader.go("/playground?model=ft:gone")
        assert "Não está mais aqui: ft:gone." in page.inner_text("main > p.notice.warn")
        page.wait_for_selector(".side-card >> nth=1")
        page.context.clear_cookies()
        page.fill("#message", "Bom dia?")
        page.click("#send")
        page.wait_for_selector(".bubble.failed p")
        told = page.locator(".bubble.failed p").first
        assert "Sua sessão terminou." in told.inner_text()
        assert told.get_attribute("lang") == "pt"


def test_a_table_that_is_being_asked_is_not_left_by_mistake_and_says_where_it_stopped(
    chromium: Any, served: LivePlatform
) -> None:
    with Reader(chromium, served) as reader:
        page = reader.page
        page.set_default_timeout(PATIENCE_MS)
        page.route("**/playground/answer", lambda route: None)  # nobody answers
        reader.go("/playground/table")
        sheet = {"name": "p.csv", "mimeType": "text/csv", "buffer": b"question\nWell met?\n" * 9}
        page.set_input_files("#file", files=[sheet])
        page.wait_for_selector("#body tr")
        page.click("#run")
        page.wait_for_selector("#stop:visible")
        with page.expect_event("dialog"):
            page.evaluate("document.querySelector('nav a').click()")
        assert len(reader.complaints) == 1, "a dialog of the browser's own"
        assert page.url.partition("?")[0].endswith("/playground/table"), "and the page stayed"
        page.click("#stop")
        page.wait_for_selector("#run:enabled")
        cells = set(page.locator("#body td.answer").all_inner_texts())
        assert cells == {"–"}, "nothing seems to be on its way"
        page.click("nav a >> nth=0")
        page.wait_for_url(f"{reader.origin}/")
        assert len(reader.complaints) == 1, "nothing is asked when nothing is lost"
