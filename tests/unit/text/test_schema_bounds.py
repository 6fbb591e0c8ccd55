"""Schemas that would keep llguidance busy for minutes, or end the process, are found before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afina.errors import InvalidRequest
from afina.text.grammars import checked_schema, schema_grammar
from afina.text.schema_bounds import EDGE

Schema = dict[str, Any]


def chain(length: int, link: str) -> Schema:
    """Definitions of which each refers to the next."""

    def one(place: int) -> Schema:
        onward = {"$ref": f"#/$defs/d{place + 1}"}
        if link == "properties":
            return {"type": "object", "properties": {"x": onward}, "required": ["x"]}
        return {"allOf": [onward]} if link == "allOf" else onward

    links = {f"d{place}": one(place) for place in range(length)}
    return {"$defs": {**links, f"d{length}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def anchors(length: int) -> Schema:
    links = {f"d{n}": {"$anchor": f"x{n}", "$ref": f"#x{n + 1}"} for n in range(length)}
    return {"$defs": links, "$ref": "#x0"}


def hidden(length: int) -> Schema:
    """As a chain, under a keyword that is none."""
    made = chain(length, "ref")
    text = json.dumps(made).replace("$defs", "x-parts")
    found: Schema = json.loads(text)
    return found


COSTLY: dict[str, Schema] = {
    "a large multiple": {"type": "integer", "multipleOf": 100_000_007},
    "small multiples together": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
    "multiples by reference": {
        "$defs": {"a": {"multipleOf": 997}, "b": {"multipleOf": 0.991}},
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
    },
    "alternatives of multiples": {
        "allOf": [{"anyOf": [{"type": "null"}, {"multipleOf": n}]} for n in (997, 991)]
    },
    "a chain of references": chain(5000, "ref"),
    "a chain through objects": chain(5000, "properties"),
    "a chain of intersections": chain(200, "allOf"),
    "a chain by anchors": anchors(5000),
    "a chain under no keyword": hidden(5000),
    "patterns together": {"allOf": [{"type": "string", "pattern": f".*{n}.*"} for n in range(30)]},
    "whole numbers below 64 bits": {"type": "integer", "minimum": -(10**21), "maximum": -(10**20)},
    "a value of 64 bits": {"enum": [1, {"a": [-(2**63)]}]},
    "whole numbers above 64 bits": {"type": "integer", "minimum": 10**20, "maximum": 10**21},
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_schema_that_would_cost_the_process_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        schema_grammar(COSTLY[name], strict=True, param="response_format")
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_json_schema")


def test_without_strict_what_cannot_be_held_is_no_rule() -> None:
    asked = {
        "type": "object",
        "properties": {
            "multipleOf": {"type": "integer", "multipleOf": 100_000_007, "minimum": 3},
            "large": {"type": "integer", "minimum": 10**20},
        },
    }
    held = json.loads(checked_schema(asked, strict=False, param="p"))
    assert held["properties"]["multipleOf"] == {"type": "integer", "minimum": 3}
    assert held["properties"]["large"] == {"type": "integer"}


def test_bounds_that_nobody_reaches_move_to_the_edge() -> None:
    int64 = {"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 2**63}
    real = {"type": "number", "maximum": 1.7976931348623157e308}
    held = json.loads(
        checked_schema({"properties": {"a": int64, "b": real}}, strict=True, param="p")
    )
    assert held["properties"]["a"] == {"type": "integer", "minimum": -EDGE, "maximum": EDGE}
    assert held["properties"]["b"] == {"type": "number", "maximum": EDGE}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "multipleOf": 0.01, "minimum": -(10**9), "maximum": 10**9},
        {"type": "integer", "multipleOf": 3600},
        {"properties": {f"k{n}": {"type": "integer", "multipleOf": 5} for n in range(50)}},
        chain(100, "properties"),
        {"type": "object", "properties": {"next": {"$ref": "#"}, "all": {"items": {"$ref": "#"}}}},
        {"anyOf": [{"type": "string", "pattern": f"^{n}$"} for n in range(40)]},
        {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}] * 2}, "b": {"$ref": "#/$defs/a"}}},
        {"enum": [{"multipleOf": 10**9, "$ref": "#/none"}]},
    ],
)
def test_a_schema_of_everyday_stays_as_it_is(schema: Schema) -> None:
    held = json.loads(checked_schema(schema, strict=True, param="p"))
    held.pop("x-guidance")
    assert held == schema
