"""Tools, formats and scores of chat completions, as the official client sees them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from tests.contract.live import BASE, Live

from afina.serving.testing import Script
from afina.text.renderer import Renderer

HELLO: Any = [{"role": "user", "content": "Rain in Rome?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
OTHER: Any = {"type": "function", "function": {"name": "time-now"}}
TWO = (
    "I look.\n"
    '<tool_call>{"name": "weather", "arguments": {"city": "Rome, \\"Italy\\""}}</tool_call>\n'
    '<tool_call>{"name": "time-now", "arguments": {}}</tool_call>'
)


def test_calls_are_told_apart_from_text(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(TWO)
    answer = client.chat.completions.create(model=BASE, messages=HELLO, tools=[WEATHER, OTHER])
    choice = ChatCompletion.model_validate(answer.model_dump()).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    calls: Any = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "time-now"]
    assert json.loads(calls[0].function.arguments) == {"city": 'Rome, "Italy"'}
    assert calls[0].id.startswith("call_")
    assert calls[0].id != calls[1].id


def test_a_stream_tells_the_same_calls_in_pieces(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(TWO)
    chunks = list(
        client.chat.completions.create(
            model=BASE, messages=HELLO, tools=[WEATHER, OTHER], stream=True
        )
    )
    content, calls = "", dict[int, dict[str, str]]()
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump())
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for call in delta.tool_calls or ():
            assert call.function is not None
            if call.id:
                assert (call.type, call.function.arguments) == ("function", "")
                calls[call.index] = {"name": call.function.name or "", "arguments": ""}
            calls[call.index]["arguments"] += call.function.arguments or ""
    assert content == "I look."
    assert calls == {
        0: {"name": "weather", "arguments": '{"city": "Rome, \\"Italy\\""}'},
        1: {"name": "time-now", "arguments": "{}"},
    }
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_helpers_read_calls_and_formats(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(TWO)
    with client.chat.completions.stream(
        model=BASE, messages=HELLO, tools=[WEATHER, OTHER]
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert len(final.choices[0].message.tool_calls or ()) == 2

    class City(BaseModel):
        name: str
        people: int

    live.engine.script = Script('{"name": "Rome", "people": 3}')
    parsed = client.chat.completions.parse(model=BASE, messages=HELLO, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Rome", people=3)
    assert '"people"' in (live.engine.requests[-1].grammar or "")


def test_definitions_are_rendered_as_training_rows_render_them(
    live: Live, client: openai.OpenAI
) -> None:
    client.chat.completions.create(model=BASE, messages=HELLO, tools=[WEATHER])
    renderer = Renderer.load(live.settings.models / BASE)
    row = renderer.training_row([*HELLO, {"role": "assistant", "content": "Yes."}], [WEATHER])
    prompt = live.engine.requests[-1].prompt
    assert row.ids[: len(prompt)] == prompt
    assert row.learned[len(prompt)]


def test_results_of_tools_go_back_in(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script('<tool_call>{"name": "time-now", "arguments": {}}</tool_call>')
    first = client.chat.completions.create(model=BASE, messages=HELLO, tools=[OTHER])
    said: Any = first.choices[0].message
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": "6"} for call in said.tool_calls
    ]
    live.engine.script = Script("Six.")
    client.chat.completions.create(
        model=BASE, messages=[*HELLO, said, *results], tools=[OTHER], max_completion_tokens=4
    )
    before, after = (request.prompt for request in live.engine.requests[-2:])
    assert after[: len(before)] == before


@pytest.mark.parametrize(
    ("choice", "allowed", "more"),
    [
        ("auto", ("weather", "time-now"), True),
        ("required", ("weather", "time-now"), True),
        ({"type": "function", "function": {"name": "time-now"}}, ("time-now",), False),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            ("weather",),
            True,
        ),
    ],
)
def test_the_choice_becomes_a_grammar(
    live: Live, client: openai.OpenAI, choice: Any, allowed: tuple[str, ...], more: bool
) -> None:
    client.chat.completions.create(
        model=BASE, messages=HELLO, tools=[WEATHER, OTHER], tool_choice=choice
    )
    grammar = live.engine.requests[-1].grammar or ""
    start = next(line for line in grammar.splitlines() if line.startswith("start:"))
    assert ("TEXT" in start) is (choice == "auto")
    assert [name for name in ("weather", "time-now") if f'"{name}\\"' in grammar] == list(allowed)
    assert (")*" in start) is more


def test_no_calls_where_none_are_wanted(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=BASE, messages=HELLO)
    plain = live.engine.requests[-1]
    client.chat.completions.create(model=BASE, messages=HELLO, tools=[WEATHER], tool_choice="none")
    asked = live.engine.requests[-1]
    assert (asked.grammar, asked.prompt) == (None, plain.prompt)


def test_one_call_where_they_must_not_be_parallel(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model=BASE, messages=HELLO, tools=[WEATHER, OTHER], parallel_tool_calls=False
    )
    grammar = live.engine.requests[-1].grammar or ""
    assert ")*" not in next(line for line in grammar.splitlines() if line.startswith("start:"))


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_answered_in_their_own_words(
    live: Live, client: openai.OpenAI, stream: bool
) -> None:
    live.engine.script = Script('<tool_call>{"name": "weather", "arguments": {}}</tool_call>')
    answer: Any = client.chat.completions.create(
        model=BASE, messages=HELLO, functions=[WEATHER["function"]], stream=stream
    )
    if not stream:
        assert answer.choices[0].message.function_call.name == "weather"
        assert answer.choices[0].finish_reason == "function_call"
        return
    chunks = list(answer)
    told = [c.choices[0].delta.function_call for c in chunks if c.choices[0].delta.function_call]
    assert told[0].name == "weather"
    assert "".join(part.arguments for part in told) == "{}"
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_a_call_that_was_cut_says_so(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script('<tool_call>{"name": "weather", "arguments": {"city": "Ro me"}}')
    answer = client.chat.completions.create(
        model=BASE, messages=HELLO, tools=[WEATHER], max_completion_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"
    calls: Any = answer.choices[0].message.tool_calls
    assert calls[0].function.arguments == '{"city": "Ro'


def test_a_call_that_a_stop_string_cut_is_none_to_be_carried_out(
    live: Live, client: openai.OpenAI
) -> None:
    whole = '<tool_call>{"name": "weather", "arguments": {}}'
    live.engine.script = Script(whole.removesuffix("}}"))
    asked: Any = {"model": BASE, "messages": HELLO, "tools": [WEATHER], "stop": ["}"]}
    answer = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert answer.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    live.engine.script = Script(whole)
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the client's own
def test_what_the_clients_helpers_read_goes_back_in(live: Live, client: openai.OpenAI) -> None:
    class weather(BaseModel):  # noqa: N801 - the function's name
        city: str

    live.engine.script = Script('<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}')
    tool = openai.pydantic_function_tool(weather)
    with client.chat.completions.stream(model=BASE, messages=HELLO, tools=[tool]) as stream:
        call: Any = stream.get_final_completion().choices[0].message
    assert call.tool_calls[0].function.parsed_arguments == weather(city="Rome")
    live.engine.script = Script('{"city": "Rome"}')
    said: Any = client.chat.completions.parse(model=BASE, messages=HELLO, response_format=weather)
    result: Any = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Rain."}
    client.chat.completions.create(
        model=BASE, messages=[*HELLO, call, result, said.choices[0].message, *HELLO]
    )
    prompt = live.engine.requests[-1].prompt
    function = {"name": "weather", "arguments": call.tool_calls[0].function.arguments}
    called = {"id": result["tool_call_id"], "type": "function", "function": function}
    first: Any = {"role": "assistant", "tool_calls": [called]}
    second: Any = {"role": "assistant", "content": '{"city": "Rome"}'}
    client.chat.completions.create(model=BASE, messages=[*HELLO, first, result, second, *HELLO])
    assert prompt == live.engine.requests[-1].prompt


def _turn(*ids: str) -> Any:
    calls = [
        {"id": id_, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        for id_ in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _result(id_: str, **more: str) -> Any:
    return {"role": "tool", "tool_call_id": id_, "content": f"of {id_}", **more}


def test_a_result_reaches_the_call_that_it_answers(live: Live, client: openai.OpenAI) -> None:
    for results in ((_result("a"), _result("b")), (_result("b"), _result("a", name="weather"))):
        client.chat.completions.create(model=BASE, messages=[*HELLO, _turn("a", "b"), *results])
    first, second = (request.prompt for request in live.engine.requests[-2:])
    assert first == second


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*HELLO, _result("a")], "messages[1].tool_call_id"),
        ([*HELLO, _turn("a"), _result("b")], "messages[2].tool_call_id"),
        ([*HELLO, _result("a"), _turn("a")], "messages[1].tool_call_id"),
        ([*HELLO, _turn("a"), _result("a", name="clock")], "messages[2].name"),
    ],
)
def test_a_result_that_answers_no_call_is_refused(
    client: openai.OpenAI, messages: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=BASE, messages=messages)
    assert refused.value.param == param


def test_a_schema_that_cannot_be_is_refused_where_the_request_has_it(
    client: openai.OpenAI,
) -> None:
    wrong: Any = {"name": "f", "parameters": {"type": "array"}}
    other: Any = {"name": "g"}
    asked: Any = {"model": BASE, "messages": HELLO}
    choice = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
    for more, param in (
        (
            {
                "tools": [{"type": "function", "function": f} for f in (other, wrong)],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": choice},
            },
            "tools[1].function.parameters",
        ),
        ({"functions": [other, wrong]}, "functions[1].parameters"),
        ({"functions": [other, other]}, "functions[1].name"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**asked, **more)
        assert refused.value.param == param


def test_scores_are_changed_as_asked(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model=BASE,
        messages=HELLO,
        presence_penalty=0.5,
        frequency_penalty=-1,
        logit_bias={"7": -100, "9": 3},
    )
    asked = live.engine.requests[-1]
    assert (asked.presence_penalty, asked.frequency_penalty) == (0.5, -1.0)
    assert asked.logit_bias == {7: -100.0, 9: 3.0}


def test_json_mode_asks_for_an_object(live: Live, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model=BASE, messages=HELLO, response_format={"type": "json_object"}
    )
    assert '"type":"object"' in (live.engine.requests[-1].grammar or "").replace(" ", "")
