"""What every reader gives: records with the line that each begins in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from afina.data.remarks import Remark

_COLUMN_SAMPLE: Final = 100


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
    notes: list[Remark] = field(default_factory=list)
    place: Place = field(default_factory=Place)
    nested: frozenset[str] = frozenset()
    """Columns in which objects or lists of them stand, as turns do; a table's cells are texts."""


@dataclass(frozen=True)
class ReadOptions:
    """What a user said about a file."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    wanted: tuple[str, ...] = ()
    """Columns that the user named: a help in finding the delimiter."""


def columns_of(records: Iterable[Record | Dropped]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Keys of the first records in the order in which they appear, and those of them under which
    objects stand, or lists of objects."""
    keys: dict[str, bool] = {}
    found = (record for record in records if isinstance(record, Record))
    for record in islice(found, _COLUMN_SAMPLE):
        for key, value in record.values.items():
            keys[key] = keys.get(key, False) or _is_nested(value)
    return tuple(keys), frozenset(key for key, is_nested in keys.items() if is_nested)


def _is_nested(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return any(isinstance(one, Mapping) for one in inner)


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
