"""What every reader gives: records with the line that each begins in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO


@dataclass(frozen=True)
class Record:
    """A row of a table or an object of a list. `line` is None where the format has no lines."""

    line: int | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Dropped:
    """A row that is no record, and why."""

    line: int | None
    reason: str
    text: bytes | None = None
    """What stands in its line, where somebody might mend it: UTF-8 on one line."""


class Place:
    """How far a reader is in its file, in bytes of it, or in rows where it knows how many there
    are. It never goes back, and a total of 0 is one that is not known."""

    def __init__(self, total: int = 0) -> None:
        self.total = total
        self._done = 0
        self._at: Callable[[], int] = lambda: 0

    def follow(self, at: Callable[[], int]) -> None:
        """From now on `at` says it."""
        self._at = at

    def now(self) -> tuple[int, int]:
        """What is done, and the total."""
        self._done = max(self._done, min(self._at(), self.total))
        return self._done, self.total


@contextmanager
def opened(path: Path, encoding: str, newline: str | None) -> Iterator[tuple[BinaryIO, TextIO]]:
    """The file's bytes, which tell how far it is read, and its text."""
    with path.open("rb") as raw, TextIOWrapper(raw, encoding=encoding, newline=newline) as text:
        yield raw, text


@dataclass
class Source:
    """An open file: its columns in their order, its records, and what was found out about it."""

    columns: tuple[str, ...]
    records: Iterator[Record | Dropped]
    encoding: str | None = None
    encoding_reason: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    notes: list[str] = field(default_factory=list)
    place: Place = field(default_factory=Place)

    @property
    def is_flat(self) -> bool:
        """Whether its cells are texts and numbers, and hold no lists."""
        return self.delimiter is not None or self.sheet is not None


@dataclass(frozen=True)
class ReadOptions:
    """What a user said about a file."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    wanted: tuple[str, ...] = ()
    """Columns that the user named: a help in finding the delimiter."""


def unique_columns(names: list[str]) -> tuple[str, ...]:
    """Names of columns: stripped, the empty ones numbered, repeated ones told apart."""
    seen: dict[str, int] = {}
    unique = []
    for place, name in enumerate(names, 1):
        base = name.strip() or f"column {place}"
        seen[base.lower()] = seen.get(base.lower(), 0) + 1
        count = seen[base.lower()]
        unique.append(base if count == 1 else f"{base} ({count})")
    return tuple(unique)
