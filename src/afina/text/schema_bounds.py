"""What a JSON schema may ask of llguidance, which has no limit of its own for it.

It computes every remainder of a `multipleOf` (for 100000007 that is minutes and gigabytes), follows
references by recursion (some thousands in a row end the process), intersects patterns by their
product, and takes whole numbers to be of 64 bits: others it cuts to that width, which makes answers
that are not valid, and the lowest of them ends the process. Everything here is found by walking the
schema once; the rest of it is llguidance's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from operator import add, mul
from typing import Any, Final
from urllib.parse import unquote

Schema = dict[str, Any]

EDGE: Final = 9_200_000_000_000_000_000
"""Numbers are held between this and its negative."""
MOST_REMAINDERS: Final = 10_000
MOST_PATTERNS: Final = 8
MOST_LEVELS: Final = 1000
_DEEP: Final = 128
_CAP: Final = 10**9
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_ONES: Final = (
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)


class TooMuch(ValueError):
    """Why a schema cannot be held; half a sentence."""


def bound(schema: Schema, *, strict: bool) -> bool:
    """Brings a schema within bounds and says whether that changed it. Bounds of numbers that nobody
    reaches move to the edge. What else cannot be held is left out of it or, if `strict`, raises
    TooMuch, as what no leaving out would help does."""
    found = _Schemas(schema)
    if found.levels > MOST_LEVELS:
        raise TooMuch(f"its references lead through more than {MOST_LEVELS} schemas")
    if max(map(found.patterns, found.nodes)) > MOST_PATTERNS:
        raise TooMuch(f"more than {MOST_PATTERNS} patterns and formats bind one string")
    if any(_beyond(node.get(key)) for node in found.nodes for key in ("const", "enum")):
        raise TooMuch("a number among its values is too large to be held")
    changed = [_move_to_edge(node, strict) for node in found.nodes]
    remainders = sum(many for many in map(found.remainders, found.nodes) if many > 1)
    if remainders > MOST_REMAINDERS:
        if strict:
            raise TooMuch(f"its 'multipleOf' have more than {MOST_REMAINDERS} remainders together")
        changed += [node.pop("multipleOf", None) is not None for node in found.nodes]
    return any(changed)


class _Schemas:
    """The schemas within one: those that stand in it, and those that its references name."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.nodes: list[Schema] = []
        self.levels = 0
        """No way through the references is longer, since each is entered once."""
        self._known: dict[str, dict[int, int]] = {"patterns": {}, "remainders": {}}
        seen: set[int] = set()
        known: set[int] = set()
        waiting = [root]
        while waiting:
            start = waiting.pop()
            if id(start) in seen:
                continue
            seen.add(id(start))
            self.levels += self._height(start, known, waiting)
        if not all(map(_is_path, self.nodes)):
            self.levels = max(self.levels, len(self.nodes))

    def _height(self, node: Schema, known: set[int], waiting: list[Schema], deep: int = 1) -> int:
        """How many schemas stand in one another; notes them and what they name."""
        if deep > _DEEP:
            raise TooMuch(f"it is nested more than {_DEEP} deep")
        if id(node) not in known:
            known.add(id(node))
            self.nodes.append(node)
        target = self.target(node)
        if target is not None:
            waiting.append(target)
        within = (self._height(part, known, waiting, deep + 1) for _, part in _parts(node))
        return 1 + max(within, default=0)

    def target(self, node: Schema) -> Schema | None:
        """What a reference names; None for one that is no path within the schema."""
        where = node.get("$ref")
        if not isinstance(where, str) or not _is_path(node):
            return None
        here: Any = self._root
        for step in unquote(where.removeprefix("#")).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict):
                here = here.get(name)
            elif isinstance(here, list) and name.isdecimal() and int(name) < len(here):
                here = here[int(name)]
            else:
                here = None
        return here if isinstance(here, dict) else None

    def patterns(self, node: Schema) -> int:
        """How many patterns and formats bind what stands at this place."""

        return self._together(node, "patterns", _patterns, add, 0)

    def remainders(self, node: Schema) -> int:
        """How many remainders the multiples at this place have together."""
        return self._together(node, "remainders", _remainders, mul, 1)

    def _together(
        self,
        node: Schema,
        what: str,
        own: Callable[[Schema], int],
        join: Callable[[int, int], int],
        nothing: int,
        deep: int = 1,
    ) -> int:
        """What a schema and those that bind the same value come to; of alternatives the most."""
        known = self._known[what]
        if id(node) in known:
            return known[id(node)]
        if deep > _DEEP:
            raise TooMuch(f"more than {_DEEP} schemas one after the other bind one value")
        known[id(node)] = nothing  # for those that lead back here
        total = own(node)
        others: dict[str, int] = {}
        for keyword, part in _parts(node):
            if keyword not in ("allOf", "anyOf", "oneOf"):
                continue
            found = self._together(part, what, own, join, nothing, deep + 1)
            if keyword == "allOf":
                total = join(total, found)
            else:
                others[keyword] = max(others.get(keyword, nothing), found)
        for most in others.values():
            total = join(total, most)
        target = self.target(node)
        if target is not None:
            found = self._together(target, what, own, join, nothing, deep + 1)
            total = join(total, found)
        known[id(node)] = min(total, _CAP)
        return known[id(node)]


def _parts(node: Schema) -> Iterator[tuple[str, Schema]]:
    """The schemas that stand in one, with their keyword."""
    for keyword in _MAPS:
        value = node.get(keyword)
        if isinstance(value, dict):
            yield from ((keyword, part) for part in value.values() if isinstance(part, dict))
    for keyword in _LISTS:
        value = node.get(keyword)
        if isinstance(value, list):
            yield from ((keyword, part) for part in value if isinstance(part, dict))
    for keyword in _ONES:
        value = node.get(keyword)
        if isinstance(value, dict):
            yield keyword, value


def _is_path(node: Schema) -> bool:
    """Whether a schema's reference, if it has one, is a path within the whole schema."""
    where = node.get("$ref")
    return not isinstance(where, str) or where == "#" or where.startswith("#/")


def _patterns(node: Schema) -> int:
    return ("pattern" in node) + ("format" in node)


def _remainders(node: Schema) -> int:
    """0.05 and 5 have five, 0.5 too."""
    step = _number(node, "multipleOf")
    if not step:
        return 1
    _, digits, exponent = Decimal(repr(step)).normalize().as_tuple()
    zeros = min(max(int(exponent), 0), 30)
    return int("".join(map(str, digits)) + "0" * zeros)


def _move_to_edge(node: Schema, strict: bool) -> bool:
    """Bounds beyond the edge move to it where that only leaves numbers out."""
    changed = False
    for name, other, sign in (
        ("minimum", "exclusiveMinimum", 1),
        ("maximum", "exclusiveMaximum", -1),
    ):
        for key in (name, other):
            value = _number(node, key)
            if value is None or abs(value) <= EDGE:
                continue
            if value * sign > 0 and strict:
                raise TooMuch(f"'{key}' leaves only numbers that are too large to be held")
            del node[key]
            changed = True
            if value * sign < 0:
                node.setdefault(name, -sign * EDGE)
    return changed


def _beyond(value: object) -> bool:
    """Whether a number beyond the edge is in a value."""
    if isinstance(value, dict | list):
        return any(map(_beyond, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and abs(value) > EDGE


def _number(node: Schema, key: str) -> float | None:
    value = node.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
