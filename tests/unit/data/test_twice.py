"""A key that an object has twice is found wherever it stands, and told by its path."""

from __future__ import annotations

import json

import msgspec
import pytest

from afina.api.body import object_of
from afina.data.twice import key_twice
from afina.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"model": "a", "model": "a"}', "model"),
        ('{"m": [{"role": "user"}, {"role": "user", "role": "tool"}]}', "m[1].role"),
        ('{"a": {"b": 1, "b": 2}, "c": 1, "c": 2}', "c"),
        ('{"a": {"b": [[{"x": null, "x": []}]]}}', "a.b[0][0].x"),
        # An escaped quotation mark is one more when it is written again.
        ('{"a": "\\u0022\\u0022", "a": "\\u0022\\u0022"}', "a"),
        ('{"mod\\u0065l": 1, "model": 2}', "model"),
        ('{"a": 1e5, "big": 123456789012345678901234567890, "a": 2}', "a"),
    ],
)
def test_a_key_given_twice_is_refused_by_its_path(text: str, path: str) -> None:
    raw = text.encode()
    assert key_twice(raw, msgspec.json.decode(raw)) == path
    with pytest.raises(InvalidRequest, match="stands more than once") as told:
        object_of(raw)
    assert (told.value.param, told.value.code) == (path, "duplicate_parameter")


@pytest.mark.parametrize(
    "value",
    [
        {"a": 'say "no": "no"', "b": {"a": 1}, "c": [{"a": 1}, {"a": 1}]},
        {"a": "\u0022\\", "é": "\x00\x1f", "big": 123456789012345678901234567890},
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_stands_once_in_each_object_is_let_in(
    value: dict[str, object], ascii_only: bool
) -> None:
    assert object_of(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
