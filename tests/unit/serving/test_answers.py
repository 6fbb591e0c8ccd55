"""Deltas: what is shown, counted and told of an answer's tokens."""

from __future__ import annotations

import pytest
from tests.tiny import write_tiny_tokenizer

from afina.serving.answers import Candidates, GeneratedAnswer
from afina.serving.protocol import Delta, Generate
from afina.text.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return ChatTokenizer.load(folder)


def answer(
    tokenizer: ChatTokenizer, ids: list[int], *, logprobs: int | None = None, **asked: object
) -> tuple[list[Delta], GeneratedAnswer]:
    request = Generate("r", "tiny", [1], 99, 0, end_tokens=[2], logprobs=logprobs)
    for name, value in asked.items():
        setattr(request, name, value)
    made = GeneratedAnswer(request, tokenizer)
    told = None if logprobs is None else Candidates(-0.5, [1], [-0.5])
    deltas: list[Delta] = []
    for id in ids:
        delta = made.take(0, id, told)
        if delta is not None:
            deltas.append(delta)
            if delta.finish is not None:
                break
    return deltas, made


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_an_end_token_ends_the_answer_and_is_no_part_of_it(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("hello world")
    deltas, made = answer(tokenizer, [*ids, 2, *ids])
    assert text_of(deltas) == "hello world"
    assert [d.finish for d in deltas][-1] == "stop"
    assert [id for d in deltas for id in d.ids] == ids
    assert made.completion_tokens == len(ids) + 1


def test_the_limit_ends_the_answer_with_length(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("the quick brown fox")
    deltas, made = answer(tokenizer, ids, max_tokens=3)
    assert deltas[-1].finish == "length"
    assert made.completion_tokens == 3
    assert text_of(deltas) == tokenizer.decode(ids[:3])


def test_a_stop_string_over_several_tokens_is_never_shown(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("the quick brown fox jumps")
    deltas, _ = answer(tokenizer, ids, stop=["brown fox"], logprobs=1)
    assert text_of(deltas) == "the quick "
    assert deltas[-1].finish == "stop"
    kept = [id for d in deltas for id in d.ids]
    assert kept == ids[: len(kept)]
    assert sum(len(d.logprobs) for d in deltas) == len(kept)
    assert "fox" not in tokenizer.decode(kept)


def test_a_held_back_beginning_comes_out_at_the_end(tokenizer: ChatTokenizer) -> None:
    deltas, _ = answer(tokenizer, [*tokenizer.encode("hello wor"), 2], stop=["world"])
    assert text_of(deltas) == "hello wor"


def test_a_character_of_several_tokens_is_shown_whole(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("né ☂!")
    deltas, _ = answer(tokenizer, [*ids, 2])
    assert text_of(deltas) == "né ☂!"
    assert all("\ufffd" not in d.text for d in deltas)
    assert [id for d in deltas for id in d.ids] == ids


def test_every_token_is_told_with_its_bytes_and_log_probability(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("né")
    deltas, _ = answer(tokenizer, [*ids, 2], logprobs=1)
    told = [t for d in deltas for t in d.logprobs]
    assert [t.id for t in told] == ids
    assert b"".join(t.bytes.encode("latin-1") for t in told).decode() == "né"
    assert all(t.logprob == -0.5 and len(t.top) == 1 for t in told)
