"""Chat completions as the official client sees them."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.contract.live import ALIAS, BASE, CONTEXT_TOKENS, Live

from afina.errors import Overloaded
from afina.serving.protocol import Generate
from afina.serving.testing import Script
from afina.text.renderer import Renderer

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def test_a_whole_answer_validates_against_the_clients_type(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=BASE, messages=HELLO)
    strict = ChatCompletion.model_validate(answer.model_dump())
    assert strict.choices[0].message.content == "Well met, good friend."
    assert strict.choices[0].finish_reason == "stop"
    assert strict.model == BASE
    assert strict.usage is not None
    assert strict.usage.total_tokens == strict.usage.prompt_tokens + 4


def test_an_alias_answers_and_the_answer_names_what_really_ran(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model=ALIAS, messages=HELLO).model == BASE


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=BASE, messages=HELLO, stream=True))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump())
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].choices[0].delta.content is None
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Well met, good friend."
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None and "usage" not in c.model_fields_set for c in chunks)


def test_usage_comes_in_an_extra_chunk_and_is_null_in_the_others(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=BASE, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert all("usage" in c.model_fields_set and c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


def test_several_choices_are_told_apart(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=BASE, messages=HELLO, n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    chunks = list(client.chat.completions.create(model=BASE, messages=HELLO, n=2, stream=True))
    for index in (0, 1):
        own = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert own[0].delta.role == "assistant"
        assert own[-1].finish_reason == "stop"


def test_logprobs_have_the_tokens_bytes_and_the_best_candidates(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=BASE, messages=HELLO, logprobs=True, top_logprobs=1
    )
    logprobs = ChatCompletion.model_validate(answer.model_dump()).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].token == "Well"
    assert logprobs.content[0].bytes == list(b"Well")
    assert logprobs.content[0].top_logprobs[0].token == "Well"
    chunks = list(
        client.chat.completions.create(model=BASE, messages=HELLO, logprobs=True, stream=True)
    )
    told = [c.choices[0].logprobs for c in chunks if c.choices[0].delta.content]
    assert all(t is not None and t.content and t.content[0].top_logprobs == [] for t in told)


def test_everything_that_was_asked_reaches_the_engine(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model=BASE,
        messages=HELLO,
        max_completion_tokens=7,
        temperature=0.25,
        top_p=0.5,
        seed=-3,
        stop=["\n\n", "END"],
        n=2,
        user="somebody",
    )
    asked = live.engine.requests[-1]
    assert asked.base == BASE
    assert (asked.max_tokens, asked.temperature, asked.top_p, asked.n) == (7, 0.25, 0.5, 2)
    assert asked.stop == ["\n\n", "END"]
    assert asked.seed == 2**63 - 3
    assert asked.logprobs is None
    assert asked.end_tokens
    assert asked.tag["user"] == "somebody"


def test_without_a_limit_an_answer_may_fill_the_context(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=BASE, messages=HELLO)
    asked = live.engine.requests[-1]
    assert asked.max_tokens + len(asked.prompt) == CONTEXT_TOKENS


def test_a_context_that_is_too_long_is_refused_with_its_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=BASE, messages=HELLO, max_tokens=CONTEXT_TOKENS)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert str(CONTEXT_TOKENS) in refused.value.message


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_a_text_that_cannot_fit_is_refused_before_its_tokens_are_made(
    live: Live, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    enormous = "a long story, " * 200_000

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Renderer, "prompt", never)
    monkeypatch.setattr(Renderer, "plain_prompt", never)
    words: Any = {
        "chat/completions": {"messages": [{"role": "user", "content": enormous}]},
        "completions": {"prompt": enormous},
        "responses": {"input": enormous},
    }
    refused = live.http.post(f"/v1/{path}", json={"model": BASE, **words[path]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] in words[path]


def test_an_unknown_model_is_a_404_that_lists_what_there_is(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert refused.value.code == "model_not_found"


def test_text_parts_are_one_text(live: Live, client: openai.OpenAI) -> None:
    parts: Any = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}],
        }
    ]
    client.chat.completions.create(model=BASE, messages=HELLO)
    client.chat.completions.create(model=BASE, messages=parts)
    assert live.engine.requests[-1].prompt == live.engine.requests[-2].prompt


def test_an_overloaded_engine_is_a_429_to_be_tried_again(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(refusal=Overloaded("The queue is full.", retry_after_s=2.5))
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model=BASE, messages=HELLO, stream=stream)
        headers = refused.value.response.headers
        assert headers["x-should-retry"] == "true"
        assert headers["retry-after-ms"] == "2500"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_breaks_off_never_gives_a_short_answer(
    live: Live, client: openai.OpenAI, stream: bool
) -> None:
    live.engine.script = Script(cut_after=2)

    def ask() -> None:
        answer = client.chat.completions.create(model=BASE, messages=HELLO, stream=stream)
        if stream:
            list(answer)

    with pytest.raises(openai.APIError) as broken:
        ask()
    assert not isinstance(broken.value, openai.APIConnectionError)
    live.engine.script = Script()
    assert client.chat.completions.create(model=BASE, messages=HELLO).choices


def test_the_raw_stream_ends_with_done_or_with_an_error(live: Live) -> None:
    body = {"model": BASE, "messages": HELLO, "stream": True}
    whole = live.http.post("/v1/chat/completions", json=body).text
    assert whole.endswith("data: [DONE]\n\n")
    live.engine.script = Script(cut_after=1)
    broken = live.http.post("/v1/chat/completions", json=body).text
    assert "[DONE]" not in broken
    assert '"error":{' in broken.rstrip().split("\n\n")[-1]


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_proxies_are_told_not_to_hold_a_stream_back(live: Live, path: str) -> None:
    words = {"chat/completions": {"messages": HELLO}, "responses": {"input": "Hi"}}
    body = {"model": BASE, "stream": True, **words.get(path, {"prompt": "Hi"})}
    headers = live.http.post(f"/v1/{path}", json=body).headers
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot_at_once(live: Live, stream: bool) -> None:
    hold = threading.Event()
    started = threading.Event()

    def script(request: Generate) -> Script:
        started.set()
        return Script(hold=hold)

    live.engine.script = script
    body = {"model": BASE, "messages": HELLO, "stream": stream}
    left = len(live.engine.left)

    def ask() -> None:
        with contextlib.suppress(httpx2.TimeoutException):
            live.http.post("/v1/chat/completions", json=body, timeout=0.3)

    asking = threading.Thread(target=ask)
    asking.start()
    assert started.wait(10)
    asking.join(10)
    pause = threading.Event()
    for _ in range(100):
        if len(live.engine.left) > left:
            break
        pause.wait(0.01)
    hold.set()
    assert len(live.engine.left) == left + 1


def test_padding_is_added_where_it_is_asked_for(live: Live) -> None:
    body = {"model": BASE, "messages": HELLO, "stream": True}
    assert '"obfuscation"' not in live.http.post("/v1/chat/completions", json=body).text
    body["stream_options"] = {"include_obfuscation": True}
    assert '"obfuscation":"' in live.http.post("/v1/chat/completions", json=body).text
