"""Bracketed names become nested; a name given twice is refused."""

from __future__ import annotations

import pytest

from afina.api.query import nested
from afina.errors import InvalidRequest


def test_brackets_become_objects() -> None:
    pairs = [("limit", "2"), ("metadata[a]", "1"), ("metadata[b c]", "2")]
    assert nested(pairs) == {"limit": "2", "metadata": {"a": "1", "b c": "2"}}


def test_empty_brackets_become_lists() -> None:
    pairs = [("group_by[]", "model"), ("group_by[]", "batch"), ("limit", "2")]
    assert nested(pairs) == {"group_by": ["model", "batch"], "limit": "2"}


@pytest.mark.parametrize(
    "pairs",
    [
        [("limit", "1"), ("limit", "1")],
        [("m[a]", "1"), ("m[a]", "2")],
        [("m", "1"), ("m[a]", "2")],
        [("m[a]", "1"), ("m", "2")],
        [("m[]", "1"), ("m", "2")],
        [("m", "1"), ("m[]", "2")],
    ],
)
def test_a_name_given_twice_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match="more than once"):
        nested(pairs)


@pytest.mark.parametrize("name", ["a[b", "a]", "[a]", "a[b][c]", "a[]x", "[" * 1000])
def test_odd_brackets_are_names_that_nobody_knows(name: str) -> None:
    assert nested([(name, "1")]) == {name: "1"}
