"""The moderation backend behind an endpoint: real HTTP, and an endpoint that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from afina.data.moderation.categories import CATEGORIES
from afina.errors import Unavailable
from afina.service.moderation_endpoint import TRIES, EndpointBackend

SCORES = json.dumps({name: 0.9 if name == "hate" else 0.1 for name in CATEGORIES})
Said = tuple[int, dict[str, str], Any]


def message(content: str | None, **more: object) -> Said:
    choice = {"message": {"content": content, **more}, "finish_reason": "stop"}
    return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": 300}}


class Endpoint:
    """Answers what the test says of a text; the last answer again where nothing is left."""

    def __init__(self, says: Callable[[str], list[Said]]) -> None:
        self.asked: list[str] = []
        self.waits: list[float] = []
        lock = threading.Lock()
        left: dict[str, list[Said]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                text = body["messages"][1]["content"].removeprefix("<text>").removesuffix("</text>")
                with lock:
                    outer.asked.append(text)
                    answers = left.setdefault(text, says(text))
                    status, headers, value = answers.pop(0) if len(answers) > 1 else answers[0]
                raw = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, one in {**headers, "content-length": str(len(raw))}.items():
                    self.send_header(name, one)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def backend(self) -> EndpointBackend:
        url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        return EndpointBackend(url, "judge", None, self.waits.append)


@pytest.fixture
def endpoint() -> Iterator[Callable[[Callable[[str], list[Said]]], Endpoint]]:
    made: list[Endpoint] = []

    def start(says: Callable[[str], list[Said]]) -> Endpoint:
        made.append(Endpoint(says))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


Start = Callable[[Callable[[str], list[Said]]], Endpoint]


@pytest.mark.parametrize(
    "content",
    [SCORES, f"```json\n{SCORES}\n```", f"Scores: {SCORES}", f"<think>Is {{it}}?</think>{SCORES}"],
)
def test_scores_are_read_from_whatever_stands_around_them(endpoint: Start, content: str) -> None:
    ((scores, tokens),) = endpoint(lambda _: [message(content)]).backend.judge(["a"])
    assert scores[CATEGORIES.index("hate")] == 0.9
    assert tokens == 300


def test_an_endpoint_that_is_busy_is_asked_again_when_it_says(endpoint: Start) -> None:
    busy: Said = (429, {"retry-after": "7"}, {"error": {}})
    long: Said = (503, {"retry-after": "9999"}, {"error": {}})
    found = endpoint(lambda _: [busy, long, message(SCORES)])
    assert found.backend.judge(["a"])[0][1] == 300
    assert found.waits == [7.0, 30.0]


@pytest.mark.parametrize(
    "said",
    [
        message("{}"),
        message("I am a poem."),
        message(None),
        message(SCORES.replace("0.9", "7")),
        message(SCORES.replace("0.9", "NaN")),
        message("[1, 2]"),
        message(SCORES.replace("0.9", "9" * 400)),
        message('{"a":' * 100_000 + "0" + "}" * 100_000),
        (200, {}, b"[" * 200_000),
        (200, {}, b"<html>"),
        (200, {}, {"choices": []}),
        (200, {}, [1]),
    ],
)
def test_an_answer_that_is_no_scores_is_asked_for_again_and_then_said(
    endpoint: Start, said: Said
) -> None:
    found = endpoint(lambda _: [said])
    with pytest.raises(Unavailable, match="gave an answer that is not of the schema"):
        found.backend.judge(["a"])
    assert len(found.asked) == TRIES


def test_a_judge_that_refuses_is_called_that(endpoint: Start) -> None:
    found = endpoint(lambda _: [message(None, refusal="I cannot help with that.")])
    with pytest.raises(Unavailable, match="gave a refusal to judge a text") as told:
        found.backend.judge(["a"])
    assert "set another moderation.endpoint_model" in str(told.value.remedy)
    assert "cannot help" not in told.value.one_line()


@pytest.mark.parametrize("said", [float("inf"), float("nan"), 10**30, -1, "many", None])
def test_tokens_that_cannot_be_are_not_counted(endpoint: Start, said: object) -> None:
    answer = message(SCORES)
    answer[2]["usage"]["prompt_tokens"] = said
    assert endpoint(lambda _: [answer]).backend.judge(["a"])[0][1] == 0


def test_an_answer_that_thinks_until_it_is_cut_is_called_that(endpoint: Start) -> None:
    cut = message("<think>The text {speaks} of")
    cut[2]["choices"][0]["finish_reason"] = "length"
    found = endpoint(lambda _: [cut])
    with pytest.raises(Unavailable, match="gave no scores within 400 tokens"):
        found.backend.judge(["a"])


def test_an_answer_without_end_is_left(endpoint: Start) -> None:
    found = endpoint(lambda _: [(200, {}, b" " * (2 << 20))])
    with pytest.raises(Unavailable, match="gave Endless"):
        found.backend.judge(["a"])
    with pytest.raises(Unavailable, match="gave Endless"):
        replace(found.backend, whole_s=-1.0).judge(["a"])


def test_an_address_is_shown_without_its_password() -> None:
    backend = EndpointBackend("http://me:secret@127.0.0.1:1/v1", "judge", None, lambda _: None)
    with pytest.raises(Unavailable, match=r"endpoint http://127\.0\.0\.1:1/v1 gave"):
        backend.judge(["a"])


def test_a_wrong_key_is_not_tried_again(endpoint: Start) -> None:
    found = endpoint(lambda _: [(401, {}, {"error": {}})])
    with pytest.raises(Unavailable, match="gave status 401"):
        found.backend.judge(["a"])
    assert len(found.asked) == 1


def test_an_endpoint_that_fails_is_not_asked_for_all_the_rest(endpoint: Start) -> None:
    found = endpoint(lambda _: [(401, {}, {"error": {}})])
    with pytest.raises(Unavailable):
        found.backend.judge([str(number) for number in range(500)])
    assert len(found.asked) < 250
