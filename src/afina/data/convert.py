"""Tables and chats of many formats to chat JSONL.

Every record becomes a row, also one with an empty answer: the check names it, this does not judge.
What is no record at all (an empty row, a line that is not JSON) is dropped, counted and named.
Rows that hold `messages` already pass as they are.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.columns import Mapped, map_columns
from afina.data.readers.delimited import read_delimited
from afina.data.readers.jsonfiles import read_json, read_jsonl
from afina.data.readers.parquet import read_parquet
from afina.data.readers.records import Dropped, ReadOptions, Source
from afina.data.readers.workbook import read_workbook
from afina.errors import DataUnreadable, InvalidRequest

_READERS: Final[Mapping[str, Callable[[Path, ReadOptions], Source]]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "xlsx": read_workbook,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
_SUFFIXES: Final = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet", "xlsm": "xlsx"}
_LINES_NAMED: Final = 20
_PROGRESS_ROWS: Final = 1000


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


@dataclass
class _Tally:
    """Counts while rows go by."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lines: dict[str, array[int]] = field(default_factory=dict)

    def drop(self, found: Dropped) -> None:
        self.dropped[found.reason] += 1
        named = self.lines.setdefault(found.reason, array("q"))
        if found.line is not None and len(named) < _LINES_NAMED:
            named.append(found.line)

    def notes(self) -> list[str]:
        """Which lines were dropped, the first of them by number."""
        notes = []
        for reason, count in self.dropped.items():
            lines = self.lines[reason]
            if lines:
                more = f" and {count - len(lines)} more" if count > len(lines) else ""
                notes.append(f"Dropped ({reason}): line {', '.join(map(str, lines))}{more}.")
        return notes


def convert_file(
    source: Path,
    target: Path,
    options: ConvertOptions,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Writes `source` as chat JSONL to `target`, whole or not at all. `progress(rows, 0)` is called
    now and then. Raises DataUnreadable for the file, InvalidRequest for the options."""
    kind = _format(source, options)
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidRequest(
            "Source and target are the same file.", param="target", remedy="Give another name."
        )
    opened = _open(source, kind, options)
    mapped = map_columns(opened.columns, options.user, options.assistant, options.system_column)
    tally = _Tally()
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb") as out:
            for found in opened.records:
                tally.rows_in += 1
                if progress is not None and tally.rows_in % _PROGRESS_ROWS == 0:
                    progress(tally.rows_in, 0)
                if isinstance(found, Dropped):
                    tally.drop(found)
                    continue
                out.write(msgspec.json.encode(_chat(found.values, mapped, options)) + b"\n")
                tally.rows_out += 1
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return ConvertReport(
        source=str(source),
        target=str(target),
        format=kind,
        rows_in=tally.rows_in,
        rows_out=tally.rows_out,
        dropped=dict(tally.dropped),
        encoding=opened.encoding,
        encoding_reason=opened.encoding_reason,
        delimiter=opened.delimiter,
        sheet=opened.sheet,
        columns=opened.columns,
        notes=(*opened.notes, *mapped.notes, *tally.notes()),
    )


def open_table(source: Path, options: ConvertOptions) -> Source:
    """The columns of a file, and its records as they stand. Raises DataUnreadable for the file,
    InvalidRequest for the options."""
    return _open(source, _format(source, options), options)


def convert_frame(frame: Any, options: ConvertOptions) -> list[dict[str, Any]]:
    """The rows of a DataFrame (anything with `columns` and `itertuples`) as chats."""
    columns = tuple(str(name) for name in frame.columns)
    mapped = map_columns(columns, options.user, options.assistant, options.system_column)
    return [
        _chat(dict(zip(columns, values, strict=True)), mapped, options)
        for values in frame.itertuples(index=False, name=None)
    ]


def _format(source: Path, options: ConvertOptions) -> str:
    ending = source.suffix.lower().lstrip(".")
    kind = (options.format or _SUFFIXES.get(ending, ending)).lower()
    if kind not in _READERS:
        raise InvalidRequest(
            f"{source.name} is of no format that can be read.",
            param="format",
            remedy=f"Say which with --format: {', '.join(_READERS)}.",
        )
    return kind


def _open(source: Path, kind: str, options: ConvertOptions) -> Source:
    named = (options.user, options.assistant, options.system_column)
    read = ReadOptions(
        encoding=options.encoding,
        delimiter=options.delimiter or ("\t" if kind == "tsv" else None),
        sheet=options.sheet,
        wanted=tuple(name for name in named if name),
    )
    for name, value, kinds in (
        ("delimiter", options.delimiter, ("csv", "tsv")),
        ("sheet", options.sheet, ("xlsx",)),
        ("encoding", options.encoding, ("csv", "tsv", "json", "jsonl")),
    ):
        if value is not None and kind not in kinds:
            raise InvalidRequest(f"A {kind} file has no {name}.", param=name)
    try:
        return _READERS[kind](source, read)
    except OSError as error:
        raise DataUnreadable(f"{source} cannot be read: {error.strerror}.") from None


def _chat(values: Mapping[str, Any], mapped: Mapped, options: ConvertOptions) -> dict[str, Any]:
    """One record as a chat. A missing value is an empty text, for the check to name."""
    if mapped.is_chat:
        return dict(values)
    messages = []
    system = options.system
    if mapped.system is not None:
        system = _text(values.get(mapped.system)) or system
    if system:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": _text(values.get(mapped.user))})
    messages.append({"role": "assistant", "content": _text(values.get(mapped.assistant))})
    return {"messages": messages}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return "" if str(value) in ("NaT", "<NA>") else str(value)
