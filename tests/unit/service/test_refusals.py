"""Refusals name the field, in the wire's words, and never repeat its value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afina.errors import InvalidRequest, UnknownField
from afina.service.chat_request import ChatRequest, refuse_unsupported
from afina.service.refusals import parse, path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "odd"]) | JSON},
    optional=dict.fromkeys(("content", "name", "tool_calls", "audio", "tool_call_id"), JSON),
)
FIELDS = sorted(set(ChatRequest.model_fields) - {"messages", "model"})


def test_a_path_has_dots_and_numbers() -> None:
    assert path(["messages", 0, "content", 2, "text"]) == "messages[0].content[2].text"
    assert path(["x" * 1000]) == "x" * 64


@given(
    st.lists(MESSAGE | JSON, max_size=3),
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=3),
)
def test_any_json_is_taken_or_refused_with_a_field_of_its_own(
    messages: list[object], fields: dict[str, object]
) -> None:
    asked = {"model": "m", "messages": messages, **fields}
    refused = refusal_of(asked)
    if refused is not None:
        assert refused.code
        assert refused.param is not None
        assert any(refused.param.startswith(name[:64]) for name in asked)


def refusal_of(asked: dict[str, object]) -> InvalidRequest | None:
    try:
        refuse_unsupported(parse(ChatRequest, asked))
    except InvalidRequest as refused:
        return refused
    return None


@pytest.mark.parametrize(
    "said",
    [
        {"role": "user", "content": "canary", "canary2": 1},
        {"role": "canary", "content": "x"},
        {"role": "user", "content": ["canary"]},
    ],
)
def test_a_refusal_does_not_repeat_what_was_said(said: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(ChatRequest, {"model": "m", "messages": [said]})
    assert "canary" not in refused.value.message.replace("canary2", "")


def test_an_unknown_field_is_told_before_other_faults() -> None:
    with pytest.raises(UnknownField):
        parse(ChatRequest, {"mesages": []})
