"""Plain completions as the official client sees them."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types import Completion
from tests.contract.live import BASE, CONTEXT_TOKENS, Live
from tests.platforms import first_caller

from afina.errors import Overloaded
from afina.service.usage import list_ledger, record_inference
from afina.serving.protocol import Generate, Score, Scored, UsageRecord
from afina.serving.testing import Script
from afina.text.renderer import Renderer


def strict(answer: Any) -> Completion:
    return Completion.model_validate(answer.model_dump())


def test_a_text_is_written_on(live: Live, client: openai.OpenAI) -> None:
    answer = strict(client.completions.create(model=BASE, prompt="Say hello"))
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Well met, good friend."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    asked = live.engine.requests[-1]
    renderer = Renderer.load(live.settings.models / BASE)
    assert renderer.tokenizer.decode(asked.prompt) == "Say hello"
    assert asked.max_tokens == 16
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(asked.prompt)


def test_prompts_may_be_texts_or_ids_one_or_many(live: Live, client: openai.OpenAI) -> None:
    ids = Renderer.load(live.settings.models / BASE).plain_prompt("the fox")
    for prompt in ("the fox", ["the fox"], ids, [ids]):
        client.completions.create(model=BASE, prompt=prompt)
        assert live.engine.requests[-1].prompt == ids

    def script(request: Generate) -> Script:
        return Script(str(len(request.prompt)))

    live.engine.script = script
    answer = client.completions.create(model=BASE, prompt=["a", "a a", "a a a"], n=2)
    sizes = [int(choice.text) for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] < sizes[4]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


def test_a_request_without_a_prompt_begins_from_nothing(live: Live, client: openai.OpenAI) -> None:
    client.completions.create(model=BASE, prompt=None)
    assert len(live.engine.requests[-1].prompt) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_in_front(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(model=BASE, prompt="Greet:", echo=True, stream=stream)
    parts = list(answer) if stream else [answer]
    assert "".join(part.choices[0].text for part in parts) == "Greet:Well met, good friend."


def test_logprobs_of_echo_begin_with_one_that_nobody_knows(
    live: Live, client: openai.OpenAI
) -> None:
    def scored(asked: Score) -> Scored:
        count = len(asked.ids)
        tops = [[token, 5] for token in asked.ids]
        return Scored([-0.5] * count, tops, [[-0.5, -3.0]] * count)

    live.engine.scored = scored
    answer = client.completions.create(model=BASE, prompt="the fox", echo=True, logprobs=1)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.token_logprobs[:2] == [None, -0.5]
    assert "".join(told.tokens) == answer.choices[0].text
    score, generate = live.engine.scores[-1], live.engine.requests[-1]
    assert score.request_id == generate.tag["prompt_paid"] == f"{generate.request_id}-echo"
    assert score.tag["project"] == generate.tag["project"]
    text = answer.choices[0].text
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert text[offset : offset + len(token)] == token
    assert [len(top) for top in told.top_logprobs[1:]] == [1] * (len(told.tokens) - 1)


def test_offsets_count_characters_that_several_tokens_make(
    live: Live, client: openai.OpenAI
) -> None:
    live.engine.scored = lambda asked: Scored(
        [-0.5] * len(asked.ids), [[i] for i in asked.ids], [[-0.5]] * len(asked.ids)
    )
    said = "the \N{OCTOPUS} fox"
    answer = client.completions.create(model=BASE, prompt=said, echo=True, logprobs=1)
    told: Any = answer.choices[0].logprobs
    text = answer.choices[0].text
    cut = [token for token in told.tokens if token.startswith("bytes:")]
    assert len(cut) > 1
    assert told.text_offset == sorted(told.text_offset)
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        if not token.startswith("bytes:"):
            assert text[offset : offset + len(token)] == token


def test_nothing_is_written_and_paid_where_nothing_is_asked_for(
    live: Live, client: openai.OpenAI
) -> None:
    answer = client.completions.create(model=BASE, prompt="only this", echo=True, max_tokens=0)
    assert answer.choices[0].text == "only this"
    assert answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert usage is not None
    assert (usage.completion_tokens, usage.total_tokens) == (0, usage.prompt_tokens)
    *_, last = client.completions.create(
        model=BASE,
        prompt="only this",
        max_tokens=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.usage is not None
    assert last.usage.completion_tokens == 0
    asked = live.engine.requests[-1]
    record_inference(
        live.platform,
        [UsageRecord(asked.request_id, 1.0, BASE, None, 2, 0, 1, "finished", asked.tag)],
    )
    kept = list_ledger(live.platform, first_caller(live.platform), limit=1).data[0]
    assert (kept.request_id, kept.completion_tokens) == (asked.request_id, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_fills_the_window_is_scored_where_nothing_is_written(
    live: Live, client: openai.OpenAI, stream: bool
) -> None:
    live.engine.scored = lambda asked: Scored(
        [-0.5] * len(asked.ids), [[i] for i in asked.ids], [[-0.5]] * len(asked.ids)
    )
    renderer = Renderer.load(live.settings.models / BASE)
    ids = renderer.plain_prompt("fox") * CONTEXT_TOKENS
    full = ids[:CONTEXT_TOKENS]
    shapes: list[dict[str, Any]] = [{"echo": True, "logprobs": 1}, {"echo": True}, {}]
    if stream:
        shapes = [{**given, "stream_options": {"include_usage": True}} for given in shapes]
    for given in shapes:
        asked = len(live.engine.requests)
        answer: Any = client.completions.create(
            model=BASE,
            prompt=full,
            max_tokens=0,
            n=2,
            stream=stream,
            **given,
        )
        parts = list(answer) if stream else [answer]
        choices = [choice for part in parts for choice in part.choices]
        assert [choice.index for choice in choices] == [0, 1]
        assert {choice.finish_reason for choice in choices} == {"length"}
        assert {len(choice.text) > 0 for choice in choices} == {"echo" in given}
        if "logprobs" in given:
            assert all(len(choice.logprobs.tokens) == len(full) for choice in choices)
        usage = parts[-1].usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(full), 0)
        assert len(live.engine.requests) == asked
        assert [*live.engine.scores[-1].prompt, *live.engine.scores[-1].ids] == full
        assert live.engine.scores[-1].tag["project"]
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.completions.create(model=BASE, prompt=[*full, full[0]], max_tokens=0)


def test_control_tokens_of_a_prompt_take_no_place_in_the_echo(
    live: Live, client: openai.OpenAI
) -> None:
    live.engine.scored = lambda asked: Scored(
        [-0.5] * len(asked.ids), [[i] for i in asked.ids], [[-0.5]] * len(asked.ids)
    )
    tokenizer = Renderer.load(live.settings.models / BASE).tokenizer
    mark = min(tokenizer.control_ids)
    fox = tokenizer.encode("fox")
    answer = client.completions.create(
        model=BASE, prompt=[mark, *fox, mark], echo=True, logprobs=0, max_tokens=0
    )
    told: Any = answer.choices[0].logprobs
    assert answer.choices[0].text == "fox"
    assert (told.text_offset[:2], told.text_offset[-1]) == ([0, 0], 3)


def test_the_best_of_several_is_given(live: Live, client: openai.OpenAI) -> None:
    answer = client.completions.create(model=BASE, prompt="x", n=2, best_of=4)
    assert len(answer.choices) == 2
    asked = live.engine.requests[-1]
    assert (asked.n, asked.logprobs) == (4, 0)
    assert answer.choices[0].logprobs is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_stream_of_several_prompts_keeps_their_numbers(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=BASE,
            prompt=["a", "b"],
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    for index in range(4):
        own = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
        assert "".join(choice.text for choice in own) == "Well met, good friend."
        assert [choice.finish_reason for choice in own][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"stream_options": {}}, "stream_options"),
        ({"max_tokens": 10_000}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_field(
    live: Live, given: dict[str, Any], param: str
) -> None:
    answer = live.http.post("/v1/completions", json={"model": BASE, "prompt": "x", **given})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_that_breaks_off_never_looks_whole(
    live: Live, client: openai.OpenAI, stream: bool
) -> None:
    live.engine.script = Script(cut_after=2)

    def ask() -> None:
        answer = client.completions.create(model=BASE, prompt=["a", "b"], stream=stream)
        if stream:
            list(answer)

    with pytest.raises(openai.APIError) as broken:
        ask()
    assert not isinstance(broken.value, openai.APIConnectionError)


def test_a_refusal_of_one_prompt_refuses_the_request(live: Live, client: openai.OpenAI) -> None:
    def script(request: Generate) -> Script:
        full = Overloaded("Full.", retry_after_s=1) if len(request.prompt) > 1 else None
        return Script(refusal=full)

    live.engine.script = script
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model=BASE, prompt=["a", "the quick fox"])
