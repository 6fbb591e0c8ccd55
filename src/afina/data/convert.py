"""Tables and chats of many formats to chat JSONL.

Every record becomes a row, also one with an empty answer: the check names it, this does not judge.
What is no record at all (an empty row, a line that is not JSON) is dropped, counted and named.
Rows that hold `messages` already pass as they are; `afina.data.layouts` lists what else is read.
"""

from __future__ import annotations

import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.cells import plain_value
from afina.data.exports import LeftOut
from afina.data.grouping import Turns, grouped
from afina.data.oddities import Oddities
from afina.data.readers.delimited import MORE_CELLS, names_columns, read_delimited
from afina.data.readers.disguises import by_content, by_name, no_text, not_even_text
from afina.data.readers.encoding import GUESS
from afina.data.readers.jsonfiles import read_json, read_jsonl
from afina.data.readers.parquet import read_parquet
from afina.data.readers.plaintext import read_text
from afina.data.readers.records import (
    Dropped,
    Place,
    ReadOptions,
    Record,
    Source,
    columns_of,
    unique_columns,
)
from afina.data.readers.workbook import read_workbook
from afina.data.remarks import Remark, remark
from afina.data.row_plan import ConvertOptions, RowPlan, plan_rows
from afina.data.targets import check_targets
from afina.data.writing import write_row
from afina.errors import DataUnreadable, InvalidRequest

__all__ = ["ConvertOptions", "ConvertReport", "convert_file", "convert_frame", "open_table"]

_READERS: Final[Mapping[str, Callable[[Path, ReadOptions], Source]]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "xlsx": read_workbook,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "txt": read_text,
}
_SUFFIXES: Final = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet", "xlsm": "xlsx", "text": "txt"}
_TEXTS: Final = frozenset({"csv", "tsv", "tab", "json", "jsonl", "ndjson", "txt", "text"})
_HALF_A_CHARACTER: Final = "half of a character, cut in two"
_LINES_NAMED: Final = 20
_PROGRESS_ROWS: Final = 1000
_LOOKED_AT: Final = 100
_OF_FRAMES: Final = frozenset({"not_used", "not_used_more", "judged"})
"""What a plan says that is warned of: not what it takes for granted, which the caller can see."""


@dataclass(frozen=True)
class ConvertReport:
    """What was read and written: `rows_in` = `rows_out` + `rows_joined` + the sum of `dropped`."""

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
    remarks: tuple[Remark, ...] = ()
    layout: str = "columns"
    """How records held their rows."""
    rows_joined: int = 0
    """Records that became further turns of a conversation that another began."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks in English."""
        return tuple(one.text for one in self.remarks)


@dataclass
class _Tally:
    """Counts while rows go by."""

    rows_in: int = 0
    rows_out: int = 0
    rows_joined: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lines: dict[str, array[int]] = field(default_factory=dict)
    oddities: Oddities = field(default_factory=Oddities)
    out_of_order: tuple[str, int] | None = None
    """A column that would put so many conversations in another order."""

    def drop(self, found: Dropped) -> None:
        self.dropped[found.reason] += 1
        named = self.lines.setdefault(found.reason, array("q"))
        if found.line is not None and len(named) < _LINES_NAMED:
            named.append(found.line)

    def notes(self, kind: str) -> list[Remark]:
        """Which lines were dropped, the first of them by number."""
        notes: list[Remark] = []
        if self.out_of_order is not None:
            column, count = self.out_of_order
            notes.append(remark("other_order", column=repr(column), n=count))
        for reason, count in self.dropped.items():
            lines = self.lines[reason]
            if lines:
                listed, more = ", ".join(map(str, lines)), count - len(lines)
                notes.append(
                    remark("dropped_more", reason=reason, lines=listed, n=more)
                    if more
                    else remark("dropped", reason=reason, lines=listed)
                )
            if (kind, reason) == ("csv", MORE_CELLS):
                notes.append(remark("unquoted"))
        return notes


def convert_file(
    source: str | Path,
    target: str | Path,
    options: ConvertOptions,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Writes `source` as chat JSONL to `target`, whole or not at all. `progress(done, total)` is
    called now and then, in bytes of the file or, where its form tells them, in rows. Raises
    DataUnreadable for the file, InvalidRequest for the options and for a target that is the source
    or no file."""
    source, target = Path(source), Path(target)
    check_targets(source, target)
    kind = _format(source, options)
    opened = _open(source, kind, options)
    plan = _planned(opened, options, kind)
    tally = _Tally()
    temporary = target.with_name(target.name + ".part")
    try:
        with temporary.open("wb") as out:
            for row in _rows(opened.records, plan, tally, _teller(opened.place, progress)):
                out.write(row)
                tally.rows_out += 1
        temporary.replace(target)
        if progress is not None:
            progress(max(1, opened.place.total), max(1, opened.place.total))
    finally:
        temporary.unlink(missing_ok=True)
    empty = () if tally.rows_in else (remark("no_rows"),)
    guess = (remark("guessed_encoding"),) if opened.encoding_reason == GUESS else ()
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
        remarks=(
            *guess,
            *opened.notes,
            *plan.notes,
            *tally.oddities.notes(),
            *tally.notes(kind),
            *empty,
        ),
        layout=plan.layout,
        rows_joined=tally.rows_joined,
    )


def _teller(place: Place, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    return _quiet if progress is None else lambda: progress(*place.now())


def _quiet() -> None:
    """Nobody wants to know how far it is."""


def _planned(opened: Source, options: ConvertOptions, kind: str) -> RowPlan:
    """The plan; where the columns give none, what was found out about the file is told too."""
    try:
        return plan_rows(opened.columns, options, text=kind == "txt", nested=opened.nested)
    except InvalidRequest as error:
        told = " ".join(
            part for part in (error.remedy, *(one.text for one in opened.notes)) if part
        )
        raise InvalidRequest(
            error.message, param=error.param, code=error.code, remedy=told or None
        ) from None


def _rows(
    records: Iterator[Record | Dropped],
    plan: RowPlan,
    tally: _Tally,
    tell: Callable[[], None],
) -> Iterator[bytes]:
    """Lines as they are to be written; rows that cannot be are dropped by the reason."""

    def kept() -> Iterator[Record | bytes]:
        for found in records:
            tally.rows_in += 1
            if tally.rows_in % _PROGRESS_ROWS == 0:
                tell()
            if not isinstance(found, Dropped):
                yield found
            elif found.text is not None and plan.options.keep_broken and plan.group is None:
                yield found.text + b"\n"
            else:
                tally.drop(found)

    if plan.group is not None:
        yield from _conversations(kept(), plan, tally)
    else:
        yield from _one_by_one(kept(), plan, tally)


def _conversations(
    records: Iterator[Record | bytes], plan: RowPlan, tally: _Tally
) -> Iterator[bytes]:
    asked = plan.options.order is not None

    def turns() -> Iterator[Turns]:
        for record in records:
            if isinstance(record, Record):
                tally.oddities.look_at_values(record, plan.named_columns)
                try:
                    yield plan.turns_of(record)
                except InvalidRequest as error:
                    tally.drop(Dropped(record.line, error.message))

    found = grouped(turns(), is_ordered=asked)
    for one in found.dropped:
        tally.drop(one)
    tally.rows_joined = tally.rows_in - len(found.chats) - sum(tally.dropped.values())
    if found.out_of_order and not asked:
        tally.out_of_order = (plan.order or "", found.out_of_order)
    for messages in found.chats:
        row = plan.conversation(messages)
        if (written := _written(None, row, plan, tally)) is not None:
            yield written


def _one_by_one(records: Iterator[Record | bytes], plan: RowPlan, tally: _Tally) -> Iterator[bytes]:
    for record in records:
        if isinstance(record, bytes):
            yield record
            continue
        tally.oddities.look_at_values(record, plan.named_columns)
        left_out: LeftOut = Counter()
        try:
            row = plan.row(record.values, left_out)
        except InvalidRequest as error:
            tally.drop(Dropped(record.line, error.message))
            continue
        tally.oddities.look_at_left_out(record.line, left_out)
        if (written := _written(record.line, row, plan, tally)) is not None:
            yield written


def _written(line: int | None, row: dict[str, Any], plan: RowPlan, tally: _Tally) -> bytes | None:
    tally.oddities.look_at_messages(line, row)
    if plan.write == "chat":
        tally.oddities.look_at_keys(line, row)
    try:
        written = msgspec.json.encode(write_row(plan.write, row)) + b"\n"
        tally.oddities.look_at_text(line, written)
        return written
    except InvalidRequest as error:
        tally.drop(Dropped(line, error.message))
    except UnicodeEncodeError:
        tally.drop(Dropped(line, _HALF_A_CHARACTER))
    return None


def open_table(source: Path, options: ConvertOptions) -> Source:
    """The columns of a file, and its records as they stand. Raises DataUnreadable for the file,
    InvalidRequest for the options."""
    return _open(source, _format(source, options), options)


def convert_frame(frame: Any, options: ConvertOptions) -> list[dict[str, Any]]:
    """The rows of a DataFrame (anything with `columns` and `itertuples`) as chats. Rows that are
    none are left out, with a warning that counts them and names the first from 1; what is odd in
    the others is warned of too, and so are columns, and an index with a name, that no message is
    made of. Raises InvalidRequest for the options, and for what is no DataFrame."""
    _refuse_no_frame(frame, options)
    columns = unique_columns([str(name) for name in frame.columns])
    records = (
        Record(number, plain_value(dict(zip(columns, values, strict=True))))
        for number, values in enumerate(frame.itertuples(index=False, name=None), 1)
    )
    first = list(islice(records, _LOOKED_AT))
    _, nested = columns_of(first)
    plan = plan_rows(columns, options, nested=nested)
    tally = _Tally()
    rows = [msgspec.json.decode(line) for line in _rows(chain(first, records), plan, tally, _quiet)]
    left_out = [note for note in plan.notes if note.name in _OF_FRAMES]
    index = [name for name in getattr(getattr(frame, "index", None), "names", ()) if name]
    if index:
        left_out.append(remark("index_not_used", names=", ".join(repr(str(n)) for n in index)))
    for note in (*left_out, *tally.oddities.notes(), *tally.notes("frame")):
        warnings.warn(note.text, stacklevel=2)
    return rows


def _refuse_no_frame(frame: Any, options: ConvertOptions) -> None:
    if not (hasattr(frame, "columns") and callable(getattr(frame, "itertuples", None))):
        what = type(frame).__name__
        other = callable(getattr(frame, "to_pandas", None))
        raise InvalidRequest(
            f"Rows are made of a pandas.DataFrame, and a {what} is none.",
            param="frame",
            remedy="Give its to_pandas()." if other else "Give pandas.DataFrame(…) of it.",
        )
    for name in ("format", "encoding", "delimiter", "sheet", "keep_broken"):
        if getattr(options, name):
            raise InvalidRequest(f"A DataFrame has no {name}: it is for files.", param=name)


def _format(source: Path, options: ConvertOptions) -> str:
    ending = source.suffix.lower().lstrip(".")
    if not options.format and source.is_file():
        # a name may promise what the bytes are not, so they are asked first
        told = no_text(source) if ending in _TEXTS else None
        if ending in _TEXTS and not options.encoding:
            told = told or not_even_text(source)
        told = told or (by_content(source) if ending == "xls" else None)
        if told is not None:
            raise told.refusal(source.name)
    kind = (options.format or _SUFFIXES.get(ending, ending)).lower()
    known = None if options.format or kind in _READERS else by_name(ending)
    if known is not None:
        raise known.refusal(source.name)
    if kind not in _READERS:
        raise InvalidRequest(
            f"{source.name} is of no format that can be read.",
            param="format",
            remedy=f"Say which with --format: {', '.join(_READERS)}.",
        )
    return "csv" if kind == "txt" and _is_table(source, options) else kind


def _is_table(source: Path, options: ConvertOptions) -> bool:
    """Of a text file: whether the user means a table, or it begins with names of columns."""
    named = (
        *(options.user, options.assistant, options.system_column),
        *(options.group, options.delimiter),
    )
    if options.format or not source.is_file():
        return False
    return any(named) or names_columns(source, ReadOptions(encoding=options.encoding))


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
        ("encoding", options.encoding, ("csv", "tsv", "json", "jsonl", "txt")),
    ):
        if value is not None and kind not in kinds:
            raise InvalidRequest(f"A {kind} file has no {name}.", param=name)
    try:
        opened = _READERS[kind](source, read)
        if kind == "csv" and not options.format and source.suffix.lower() in (".txt", ".text"):
            opened.notes.insert(0, remark("table_in_text"))
        return opened
    except OSError as error:
        raise DataUnreadable(f"{source} cannot be read: {error.strerror}.") from None
