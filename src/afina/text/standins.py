"""Strings that stand for a message's text while a template runs, and note what it asks of them.

A template is run once over stand-ins instead of texts. Where it only writes them, or trims them
first, what it wrote shows where texts go. Where it asks about one (is it empty, does it hold this
word), the answer that an ordinary text gives is assumed and noted, and a text that would have
answered otherwise is later written by the template itself. Whatever else is done with a stand-in
spoils the run: then nothing was learned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MARK: Final = "\ufdd2"
"""A noncharacter around the number of a stand-in: no template writes it."""
PLACES: Final = re.compile(f"{MARK}([0-9]+){MARK}")

Trim = tuple[str, str | None]
"""The name of a method that takes characters off the ends, and which (None: white space)."""


@dataclass(frozen=True)
class Origin:
    """The text that a stand-in stands for: that of a message, after some trims."""

    message: int
    trims: tuple[Trim, ...] = ()

    def value(self, contents: list[str]) -> str:
        """The text itself."""
        text = contents[self.message]
        for method, characters in self.trims:
            text = getattr(text, method)(characters)
        return text


@dataclass(frozen=True)
class Assumed:
    """What was assumed of a text: that it is not empty (`holds` None), or that a question about
    `holds`, asked by a method of strings, is answered with no."""

    of: Origin
    method: str
    holds: str | None = None

    def is_true(self, contents: list[str]) -> bool:
        """Whether these texts are such."""
        text = self.of.value(contents)
        return bool(text) if self.holds is None else not getattr(text, self.method)(self.holds)


@dataclass
class Trace:
    """What one run did with its stand-ins."""

    origins: list[Origin] = field(default_factory=list)
    assumed: dict[Assumed, None] = field(default_factory=dict)
    spoiled: bool = False

    def stand_in(self, origin: Origin) -> StandIn:
        """A new one."""
        self.origins.append(origin)
        return StandIn(f"{MARK}{len(self.origins) - 1}{MARK}", self, origin)

    def spoil(self) -> Spoiled:
        """Says that nothing can be learned of this run, even where the template goes on."""
        self.spoiled = True
        return Spoiled("a template did more with a text than to write it")


class Spoiled(Exception):
    """A run from which nothing can be learned."""


class StandIn(str):
    """Stands for a text, or for one with other words around it (`origin` None)."""

    __slots__ = ("_origin", "_trace")
    _trace: Trace
    _origin: Origin | None

    def __new__(cls, text: str, trace: Trace, origin: Origin | None) -> StandIn:
        made = super().__new__(cls, text)
        made._trace, made._origin = trace, origin
        return made

    def _assume(self, method: str, holds: str | None = None) -> None:
        if self._origin is None or type(holds) not in (str, type(None)):
            raise self._trace.spoil()
        self._trace.assumed[Assumed(self._origin, method, holds)] = None

    def __bool__(self) -> bool:
        self._assume("__bool__")
        return True

    def __contains__(self, key: Any) -> bool:
        self._assume("__contains__", key)
        return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False  # as no text equals what is none
        self._assume("__eq__", other)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        raise self._trace.spoil()

    def startswith(self, prefix: Any, *places: Any) -> bool:
        return self._asked("startswith", prefix, places)

    def endswith(self, suffix: Any, *places: Any) -> bool:
        return self._asked("endswith", suffix, places)

    def _asked(self, method: str, text: Any, places: tuple[Any, ...]) -> bool:
        if places or type(text) is not str:
            raise self._trace.spoil()
        self._assume(method, text)
        return False

    def strip(self, characters: str | None = None, /) -> StandIn:
        return self._trimmed("strip", characters)

    def lstrip(self, characters: str | None = None, /) -> StandIn:
        return self._trimmed("lstrip", characters)

    def rstrip(self, characters: str | None = None, /) -> StandIn:
        return self._trimmed("rstrip", characters)

    def _trimmed(self, method: str, characters: str | None) -> StandIn:
        if self._origin is None or type(characters) not in (str, type(None)):
            raise self._trace.spoil()
        trims = (*self._origin.trims, (method, characters))
        return self._trace.stand_in(Origin(self._origin.message, trims))

    def __add__(self, other: str) -> StandIn:
        return self._joined(self, other)

    def __radd__(self, other: str) -> StandIn:
        return self._joined(other, self)

    def _joined(self, *both: str) -> StandIn:
        if not all(isinstance(part, str) for part in both):
            raise self._trace.spoil()
        return StandIn("".join(both), self._trace, None)


def _spoiling(name: str) -> Callable[..., Any]:
    def method(self: StandIn, *_: Any, **__: Any) -> Any:
        raise self._trace.spoil()

    method.__name__ = name
    return method


_KEPT: Final = frozenset(
    ("__class__", "__doc__", "__dir__", "__getattribute__", "__init__", "__new__",
     "__str__", "__format__", "__init_subclass__", "__subclasshook__", "__setattr__",
     "__delattr__", "__reduce__", "__reduce_ex__", "__getstate__", "__sizeof__")
)  # fmt: skip
"""What Python itself needs of an object, and writing it as it is."""
for _name in (*dir(str), "__reversed__", "__rmul__", "__rmod__"):
    if _name not in _KEPT and _name not in vars(StandIn):
        setattr(StandIn, _name, _spoiling(_name))


def spoil_within(value: object) -> None:
    """Raises where a stand-in is anywhere in `value`, which is about to be copied unseen."""
    if isinstance(value, StandIn):
        raise value._trace.spoil()
    if isinstance(value, Mapping):
        for key, item in value.items():
            spoil_within(key)
            spoil_within(item)
    elif isinstance(value, list | tuple):
        for item in value:
            spoil_within(item)
