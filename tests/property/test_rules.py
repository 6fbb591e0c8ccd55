"""The quick yes for rows, against the rules themselves."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from afina.data.rules import registry
from afina.data.rules.plain import is_plainly_good

CONTENT = st.sampled_from(
    ["a", "", " ", "\u2003", "\x1c", "\u200b", None, 3, ["a"], [], {"type": "text"}]
)
WEIGHT = st.sampled_from([0, 1, True, False, 0.0, 1.0, 2, None, "1"])
ROLE = st.sampled_from(["system", "user", "assistant", "assistant", "tool", "developer", "x", None])
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": ROLE, "content": CONTENT},
            optional={"weight": WEIGHT, "name": CONTENT, "tool_calls": CONTENT},
        ),
        st.fixed_dictionaries({"role": st.just("user"), "content": st.just("a")}),
        st.fixed_dictionaries(
            {"role": st.just("assistant"), "content": st.just("a")}, optional={"weight": WEIGHT}
        ),
        st.none(),
    ),
    max_size=4,
)
ROWS: st.SearchStrategy[Any] = st.one_of(
    MESSAGES.map(lambda messages: {"messages": messages}),
    st.fixed_dictionaries(
        {"messages": MESSAGES}, optional={"tools": CONTENT, "weight": WEIGHT, "functions": CONTENT}
    ),
    st.sampled_from([None, 3, [], {}, {"messages": None}, {"messages": "a"}]),
)


def faults(row: Any) -> list[str]:
    """Codes of all that the rules find in a row."""
    found: list[str] = []
    for rule in registry.ROW_RULES:
        broken = list(rule.find(row))
        found += [rule.code] * len(broken)
        if broken and rule.stops:
            return found
    for message in row["messages"]:
        if not isinstance(message, dict):
            continue
        for message_rule in registry.MESSAGE_RULES:
            broken = list(message_rule.find(message))
            found += [message_rule.code] * len(broken)
            if broken and message_rule.stops:
                break
    return found


@settings(max_examples=400, deadline=None)
@given(row=ROWS)
def test_a_row_that_is_plainly_good_breaks_no_rule(row: Any) -> None:
    found = faults(row)
    if is_plainly_good(json.dumps(row).encode()):
        assert found == []


@settings(max_examples=50, deadline=None)
@given(contents=st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_the_commonest_rows_are_plainly_good(contents: list[str]) -> None:
    roles = ["assistant" if n % 2 == 0 else "user" for n in range(len(contents))][::-1]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    raw = json.dumps({"messages": messages}, ensure_ascii=False).encode()
    assert is_plainly_good(raw) == (messages[-1]["role"] == "assistant")
