"""What a file says is exactly what the type says, and a fault is named by its place."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from afina.domain.codec import decode, encode


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Leaf:
    number: float = 1.0
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Tree:
    """Holds itself, as types may."""

    name: str
    sizes: tuple[int, ...] = ()
    pair: tuple[str, int] = ("a", 1)
    leaf: Leaf | None = None
    trees: Mapping[str, Tree] = field(default_factory=dict)
    mode: Literal["auto"] | int = "auto"
    rest: Any = None


WHOLE: dict[str, Any] = {
    "name": "oak",
    "sizes": [1, 2],
    "pair": ["b", 2],
    "leaf": {"number": 2, "colour": "red"},
    "trees": {"small": {"name": "ash"}},
    "mode": 3,
    "rest": [None, {"x": 1}],
}


def test_a_value_comes_back_as_it_was_written() -> None:
    tree = decode(Tree, WHOLE)
    assert tree.leaf == Leaf(2.0, Colour.RED)
    assert isinstance(tree.leaf, Leaf)
    assert isinstance(tree.leaf.number, float)
    assert tree.trees["small"] == Tree("ash")
    assert decode(Tree, encode(tree)) == tree
    assert decode(Tree, {"name": "elm", "leaf": None}) == Tree("elm")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, "spec.name: expected str, found 1"),
        ({"sizes": [1, True]}, "spec.sizes[1]: expected an integer, found a boolean"),
        ({"sizes": 1}, "spec.sizes: expected an array"),
        ({"pair": ["a"]}, "spec.pair: expected 2 items, found 1"),
        ({"pair": {}}, "spec.pair: expected an array"),
        ({"leaf": {"colour": "blue"}}, "spec.leaf.colour: 'blue' is not a Colour"),
        ({"leaf": {"number": "2"}}, "spec.leaf.number: expected float, found '2'"),
        ({"leaf": []}, "spec.leaf: expected an object for Leaf"),
        ({"trees": {"a": {}}}, "spec.trees.a: missing key 'name'"),
        ({"trees": []}, "spec.trees: expected an object"),
        ({"mode": "x"}, "spec.mode: expected one of ('auto',), found 'x' or spec.mode: expected"),
        ({"colour": 1, "age": 1}, "spec: unknown key 'age'"),
    ],
)
def test_a_fault_is_named_by_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared
        decode(Tree, WHOLE | change, "spec")
    assert str(caught.value).startswith(said)
