"""Chunks and answers are the same JSON, whatever is in them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from afina.domain.ids import Ids
from afina.service.chat_answer import AnswerHead, Chunks, WholeAnswer
from afina.serving.protocol import Delta, Final, TokenLogprob, TopLogprob

HEAD = AnswerHead(id="chatcmpl-1", created=7, model='odd "name"', fingerprint="fp_1")


def events(raw: bytes) -> list[dict[str, Any]]:
    return [
        json.loads(event.removeprefix("data: ")) for event in raw.decode().split("\n\n") if event
    ]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.booleans())
def test_any_text_survives_a_chunk(text: str, include_usage: bool) -> None:
    raw = Chunks(HEAD, include_usage).delta(Delta(text=text))
    if not text:
        assert raw == b""
        return
    assert raw.count(b"\n") == 2
    (chunk,) = events(raw)
    assert chunk["choices"][0]["delta"] == {"content": text}
    assert chunk["model"] == HEAD.model
    assert ("usage" in chunk) is include_usage


def test_a_choices_end_is_a_chunk_of_its_own_after_its_text() -> None:
    first, second = events(Chunks(HEAD, False).delta(Delta(choice=1, text="a", finish="length")))
    assert first["choices"][0]["finish_reason"] is None
    assert second["choices"][0] == {
        "index": 1,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }


def test_a_token_that_is_part_of_a_character_shows_its_bytes() -> None:
    head = AnswerHead(id="a", created=1, model="m", fingerprint="f", logprobs=True)
    half = "é".encode()[:1].decode("latin-1")
    delta = Delta(logprobs=[TokenLogprob(5, half, -1.5, [TopLogprob(5, half, -1.5)])])
    (chunk,) = events(Chunks(head, False).delta(delta))
    (token,) = chunk["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["bytes"]) == ("\\xc3", [195])
    assert token["top_logprobs"][0]["bytes"] == [195]


def test_a_whole_answer_keeps_choices_apart_and_counts_once() -> None:
    answer = WholeAnswer(AnswerHead(id="a", created=1, model="m", fingerprint="f", n=2))
    for delta in (
        Delta(choice=1, text="B"),
        Delta(text="A"),
        Delta(choice=1, text="b", finish="length"),
        Delta(finish="stop"),
    ):
        answer.add(delta)
    told = json.loads(answer.finish(Final(prompt_tokens=3, cached_tokens=2, completion_tokens=5)))
    assert [c["message"]["content"] for c in told["choices"]] == ["A", "Bb"]
    assert [c["finish_reason"] for c in told["choices"]] == ["stop", "length"]
    assert told["usage"]["total_tokens"] == 8
    assert told["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


def test_padding_hides_the_length_of_chunks() -> None:
    chunks = Chunks(HEAD, False, padding=Ids(seed=1))
    lengths = {len(chunks.delta(Delta(text="a"))) for _ in range(50)}
    assert len(lengths) > 5
