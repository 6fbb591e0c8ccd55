"""Columns of JSON are read as `json.loads` reads them, sooner."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afina.store.dialects import read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.sqlite
@given(VALUES)
def test_what_was_written_is_read_to_the_same_values(value: object) -> None:
    written = json.dumps(value)
    assert repr(read_json(written)) == repr(json.loads(written))


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "text", ["NaN", '{"loss": -Infinity}', '"\\ud800"', "1e400", "9" * 40, '{"a": 1, "a": 2}']
)
def test_what_no_table_should_hold_is_read_as_before(text: str) -> None:
    assert repr(read_json(text)) == repr(json.loads(text))


def test_what_is_no_json_is_told() -> None:
    with pytest.raises(ValueError, match="property name"):
        read_json("{")
