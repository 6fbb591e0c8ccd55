"""Responses as the official client sees them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from tests.contract.live import BASE, Live

from afina.serving.testing import Script
from afina.text.renderer import Renderer

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
NOW: Any = {"type": "function", "name": "now", "parameters": None, "strict": None}
CALLS = (
    "I look.\n"
    '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>\n'
    '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
)
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def strict(answer: Response) -> Response:
    return Response.model_validate(answer.model_dump())


def decoded(live: Live) -> str:
    renderer = Renderer.load(live.settings.models / BASE)
    return renderer.tokenizer.decode(live.engine.requests[-1].prompt)


def test_a_response_says_what_was_asked_and_answered(live: Live, client: openai.OpenAI) -> None:
    made = strict(client.responses.create(model=BASE, input="Hello!", instructions="Be brief."))
    assert made.output_text == "Well met, good friend."
    assert (made.status, made.model, made.instructions) == ("completed", BASE, "Be brief.")
    assert made.usage is not None
    assert made.usage.input_tokens == len(live.engine.requests[-1].prompt)
    chat: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    client.chat.completions.create(model=BASE, messages=chat)
    assert live.engine.requests[-1].prompt == live.engine.requests[-2].prompt
    found = client.responses.retrieve(made.id)
    assert found.model_dump() == made.model_dump()
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_nothing_is_kept_where_it_is_not_wanted(client: openai.OpenAI) -> None:
    made = client.responses.create(model=BASE, input="Hello!", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_items_of_all_kinds_are_messages(live: Live, client: openai.OpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "Rules."},
        {"role": "user", "content": [{"type": "input_text", "text": "Time?"}]},
        {"type": "function_call", "call_id": "c1", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "six"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Six.", "annotations": []}],
        },
        {"role": "user", "content": "Sure?"},
    ]
    made = client.responses.create(model=BASE, input=items)
    text = decoded(live)
    order = ["Rules.", "Time?", '"now"', "six", "Six.", "Sure?"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    listed = list(client.responses.input_items.list(made.id, order="asc", limit=2))
    assert [item.type for item in listed] == [item.get("type", "message") for item in items]
    newest = client.responses.input_items.list(made.id, limit=1)
    assert newest.data[0].id == listed[-1].id


def test_an_output_that_answers_no_call_is_refused(client: openai.OpenAI) -> None:
    call: Any = {"type": "function_call", "call_id": "c1", "name": "now", "arguments": "{}"}
    output: Any = {"type": "function_call_output", "call_id": "c1", "output": "six"}
    for items in ([output], [output, call], [call, output | {"call_id": "c2"}]):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model=BASE, input=items)
        place = next(n for n, item in enumerate(items) if item is not call)
        assert refused.value.param == f"input[{place}].call_id"


def test_a_conversation_goes_on_from_an_earlier_response(live: Live, client: openai.OpenAI) -> None:
    first = client.responses.create(model=BASE, input="One.", instructions="Not again.")
    second = client.responses.create(model=BASE, input="Two.", previous_response_id=first.id)
    client.responses.create(model=BASE, input="Three.", previous_response_id=second.id)
    text = decoded(live)
    order = ["One.", "Well met, good friend.", "Two.", "Well met, good friend.", "Three."]
    place = -1
    for part in order:
        place = text.index(part, place + 1)
    assert "Not again." not in text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(model=BASE, input="Four.", previous_response_id=second.id)
    assert gone.value.param == "previous_response_id"


@pytest.mark.parametrize("script", ["Well met, good friend.", CALLS])
def test_events_add_up_to_the_response(live: Live, client: openai.OpenAI, script: str) -> None:
    live.engine.script = Script(script)
    with client.responses.stream(model=BASE, input="Hello!", tools=[WEATHER, NOW]) as stream:
        events = [event for event in stream if not event.type.startswith("response.function_x")]
        final = stream.get_final_response()
    kept = client.responses.retrieve(final.id)
    assert kept.output_text == final.output_text
    assert [item.type for item in kept.output] == [item.type for item in final.output]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    if script == CALLS:
        assert final.output_text == "I look."
        assert kinds.count("response.function_call_arguments.done") == 2


def test_every_event_is_of_the_clients_types(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(CALLS)
    events = list(
        client.responses.create(
            model=BASE,
            input="Hello!",
            tools=[WEATHER, NOW],
            stream=True,
            include=["message.output_text.logprobs"],
            top_logprobs=1,
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event.model_dump())
    texts = [event for event in events if event.type == "response.output_text.delta"]
    assert any(event.logprobs for event in texts)


def test_calls_are_items_and_their_results_come_back(live: Live, client: openai.OpenAI) -> None:
    live.engine.script = Script(CALLS)
    made = strict(client.responses.create(model=BASE, input="Rome?", tools=[WEATHER, NOW]))
    calls: Any = [item for item in made.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", {"city": "Rome"}),
        ("now", {}),
    ]
    assert live.engine.requests[-1].grammar is not None
    live.engine.script = Script("Sun.")
    answers: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls
    ]
    more = client.responses.create(model=BASE, input=answers, previous_response_id=made.id)
    assert more.output_text == "Sun."
    chosen: Any = {"type": "function", "name": "now"}
    client.responses.create(model=BASE, input="x", tools=[WEATHER, NOW], tool_choice=chosen)
    grammar = live.engine.requests[-1].grammar or ""
    assert '"now\\"' in grammar
    assert "weather" not in grammar


def test_a_format_is_parsed_by_the_client(live: Live, client: openai.OpenAI) -> None:
    class City(BaseModel):
        name: str

    live.engine.script = Script('{"name": "Rome"}')
    made = client.responses.parse(model=BASE, input="Where?", text_format=City)
    assert made.output_parsed == City(name="Rome")
    assert '"name"' in (live.engine.requests[-1].grammar or "")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_was_cut_is_incomplete(client: openai.OpenAI, stream: bool) -> None:
    made: Any = client.responses.create(
        model=BASE, input="Hello!", max_output_tokens=2, stream=stream
    )
    if stream:
        last = list(made)[-1]
        assert last.type == "response.incomplete"
        made = last.response
    assert made.status == "incomplete"
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output[0].status == "incomplete"


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_breaks_off_raises_and_nothing_is_kept(
    live: Live, client: openai.OpenAI, stream: bool
) -> None:
    live.engine.script = Script(cut_after=2)
    seen: list[Any] = []

    def ask() -> None:
        made = client.responses.create(model=BASE, input="Hello!", stream=stream)
        if stream:
            seen.extend(made)

    with pytest.raises(openai.APIError) as broken:
        ask()
    assert not isinstance(broken.value, openai.APIConnectionError)
    if stream:
        id = seen[0].response.id
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(id)


def test_tokens_are_counted_as_they_are_rendered(live: Live, client: openai.OpenAI) -> None:
    count = client.responses.input_tokens.count(model=BASE, input="Hello!", tools=[NOW])
    client.responses.create(model=BASE, input="Hello!", tools=[NOW])
    assert count.input_tokens == len(live.engine.requests[-1].prompt)


def test_a_response_that_is_over_cannot_be_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(model=BASE, input="Hello!")
    with pytest.raises(openai.BadRequestError, match="cancel"):
        client.responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_none")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": None}, "input"),
        ({"stream_options": {}}, "stream_options"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_field(
    live: Live, given: dict[str, Any], param: str
) -> None:
    answer = live.http.post("/v1/responses", json={"model": BASE, "input": "x", **given})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
