"""Tables and chats of many formats to chat JSONL."""

from __future__ import annotations

from dataclasses import dataclass, field
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ConvertOptions:
    """How columns become messages. Names of columns are matched without regard to case."""

    user: str | None = None
    assistant: str | None = None
    system_column: str | None = None
    system: str | None = None
    """A fixed system message in front of every row."""
    format: str | None = None
    """csv, tsv, xlsx, json, jsonl, parquet; by default from the file's name."""
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None


@dataclass(frozen=True)
class ConvertReport:
    """What was read and written: `rows_in` = `rows_out` + the sum of `dropped`."""

    source: str
    target: str
    format: str
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows not written, by reason."""
    encoding: str | None = None
    encoding_reason: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    columns: tuple[str, ...] = ()
    """The columns that the file has."""
    notes: tuple[str, ...] = ()


def convert_file(
    source: Path,
    target: Path,
    options: ConvertOptions,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Writes `source` as chat JSONL to `target`. Raises DataUnreadable or InvalidRequest."""
    raise NotImplementedError


def convert_frame(frame: Any, options: ConvertOptions) -> list[dict[str, Any]]:
    """The rows of a DataFrame (anything with `columns` and `itertuples`) as chats."""
    raise NotImplementedError
