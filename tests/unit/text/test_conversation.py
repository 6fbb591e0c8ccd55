"""Messages of the wire API in a template's dialect."""

from __future__ import annotations

from typing import Any

import pytest

from afina.errors import InvalidRequest, UnsupportedField
from afina.text.conversation import Dialect, read_conversation

PLAIN = Dialect(native_tools=False, developer=False)
USER: dict[str, Any] = {"role": "user", "content": "Hi"}


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = read_conversation([{"role": "user", "content": parts}], None, PLAIN)
    assert chat.messages[0]["content"] == "ab"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video", None])
def test_a_part_that_is_no_text_is_refused_by_its_field(kind: str | None) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "a"},
        {"type": kind, kind or "x": {"url": "data:"}},
    ]
    with pytest.raises(UnsupportedField) as caught:
        read_conversation([USER, {"role": "user", "content": parts}], None, PLAIN)
    assert caught.value.param == "messages[1].content[1].type"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": "assistant", "content": None}, "messages[0].content"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{}]},
            "messages[0].tool_calls[0].function",
        ),
    ],
)
def test_what_cannot_be_written_names_its_field(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_conversation([message], None, PLAIN)
    assert caught.value.param == param


def test_no_messages_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        read_conversation([], None, PLAIN)


@pytest.mark.parametrize(("known", "role"), [(True, "developer"), (False, "system")])
def test_developer_is_system_where_the_template_does_not_know_it(known: bool, role: str) -> None:
    dialect = Dialect(native_tools=False, developer=known)
    chat = read_conversation([{"role": "developer", "content": "x"}, USER], None, dialect)
    assert chat.messages[0]["role"] == role


def test_a_weight_of_zero_is_not_learned() -> None:
    answers = [{"role": "assistant", "content": "a", "weight": w} for w in (0, 1)]
    chat = read_conversation([USER, answers[0], USER, answers[1], USER], None, PLAIN)
    assert chat.learned == [False, False, False, True, False]


def test_tools_join_the_system_message_or_make_one() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    system = {"role": "system", "content": "Be kind."}
    joined = read_conversation([system, USER], tools, PLAIN)
    alone = read_conversation([USER], tools, PLAIN)
    assert joined.messages[0]["content"].startswith("Be kind.\n\nYou can call these tools.")
    assert alone.messages[0]["role"] == "system"
    assert len(alone.learned) == len(alone.messages) == 2
    assert joined.messages[0]["content"].endswith(alone.messages[0]["content"])


def test_older_function_calls_are_tool_calls() -> None:
    call = {"name": "f", "arguments": "{}"}
    messages: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "42"},
    ]
    plain = read_conversation(messages, None, PLAIN)
    assert plain.messages[1]["content"] == '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert plain.messages[2] == {
        "role": "user",
        "content": "<tool_response>\n42\n</tool_response>",
    }
    native = read_conversation(messages, None, Dialect(native_tools=True, developer=False))
    assert native.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}
    assert native.messages[2]["role"] == "tool"


def test_a_refusal_is_what_the_assistant_says() -> None:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": "I will not."}
    assert read_conversation([USER, message], None, PLAIN).messages[1]["content"] == "I will not."


@pytest.mark.parametrize("native", [True, False])
def test_results_stand_in_the_order_of_their_calls(native: bool) -> None:
    calls = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for id_, name in (("c1", "first"), ("c2", "second"), ("c3", "third"))
    ]
    asked = [USER, {"role": "assistant", "content": None, "tool_calls": calls}]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": f"result {n}"} for n in (3, 1)]
    late = {"role": "tool", "tool_call_id": "c9", "content": "of another turn"}
    dialect = Dialect(native_tools=native, developer=True)
    chat = read_conversation([*asked, late, *results, USER], None, dialect)
    text = "\n".join(str(m["content"]) for m in chat.messages)
    places = [text.index(said) for said in ("result 1", "result 3", "of another turn")]
    assert places == sorted(places)
