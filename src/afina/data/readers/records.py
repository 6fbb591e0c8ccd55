"""What every reader gives: records with the line that each begins in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


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
