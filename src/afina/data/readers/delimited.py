"""CSV and TSV: quoted fields with line breaks, the delimiter found out, lines counted right."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from afina.data.columns import name_a_pair
from afina.data.readers.encoding import find_encoding
from afina.data.readers.header import find_header
from afina.data.readers.records import (
    Dropped,
    Place,
    ReadOptions,
    Record,
    Source,
    opened,
    unique_columns,
)
from afina.data.remarks import remark
from afina.errors import DataUnreadable, InvalidRequest

_DELIMITERS: Final = (",", ";", "\t", "|")
_NAMES: Final = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
_SAMPLE_RECORDS: Final = 40
_HINT: Final = 20
_FIRST_LINE: Final = 1 << 16
_FIELD_CHARACTERS: Final = 16 * 1024 * 1024
_SAID: Final = {
    "unexpected end of data": "a quotation mark opens a cell there, and none closes it",
    "expected after": "a cell goes on behind the quotation mark that closes it",
    "field larger": f"a cell is longer than {_FIELD_CHARACTERS >> 20} million characters",
}
MORE_CELLS: Final = "more cells than columns"
EMPTY_ROW: Final = "empty row"


def read_delimited(path: Path, options: ReadOptions) -> Source:
    """A CSV or TSV file with a header. Raises DataUnreadable."""
    csv.field_size_limit(_FIELD_CHARACTERS)
    found = find_encoding(path, options.encoding)
    hint = _excel_hint(path, found.name)
    given = _given(options.delimiter) or hint
    delimiter = given or _find(path, found.name, options.wanted)
    single = _is_single_quoted(path, found.name, delimiter)
    place = Place(path.stat().st_size)
    rows = _rows(path, found.name, delimiter, place, quote="'" if single else '"')
    if hint is not None:
        next(rows)  # `sep=;` says how the rest is written and is no row
    header = find_header(rows, options.wanted)
    if header is None or not any(name.strip() for name in header.names):
        raise DataUnreadable(
            f"{path.name} is empty.", remedy="Give a table with a header.", code="file_empty"
        )
    columns = unique_columns(header.names)
    notes = [header.note] if header.note else []
    if single:
        notes.append(remark("single_quotes"))
    return Source(
        columns=columns,
        records=_records(header.rows, columns),
        notes=notes,
        encoding=found.name,
        encoding_reason=found.reason,
        delimiter=_NAMES.get(delimiter, delimiter),
        place=place,
    )


def _records(
    rows: Iterator[tuple[int, list[str]]], columns: tuple[str, ...]
) -> Iterator[Record | Dropped]:
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            yield Dropped(line, EMPTY_ROW)
        elif any(cell.strip() for cell in cells[len(columns) :]):
            yield Dropped(line, MORE_CELLS)
        else:
            short = [""] * (len(columns) - len(cells))
            yield Record(line, dict(zip(columns, [*cells, *short], strict=False)))


def _rows(
    path: Path, encoding: str, delimiter: str, place: Place | None = None, quote: str = '"'
) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line that each begins in; lines end as editors count them."""
    with opened(path, encoding, "") as (raw, file):
        if place is not None:
            place.follow(raw.tell)
        spaced = _is_spaced(path, encoding, delimiter, quote)
        reader = csv.reader(
            file, delimiter=delimiter, quotechar=quote, strict=True, skipinitialspace=spaced
        )
        line = 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataUnreadable(
                    f"{path.name} cannot be read from line {line} on: {_in_words(error)}.",
                    remedy="Look for a quotation mark that is not closed or not doubled there.",
                    code="file_quotes",
                ) from None
            except UnicodeError:
                # a byte order mark is a promise that the rest of a damaged file may not keep
                raise DataUnreadable(
                    f"{path.name} is not {encoding} text from line {line} on.",
                    param="encoding",
                    remedy="Save it again as UTF-8, or give its encoding.",
                    code="file_encoding",
                ) from None
            if cells is None:
                return
            yield line, cells
            line = reader.line_num + 1


def _is_single_quoted(path: Path, encoding: str, delimiter: str) -> bool:
    """Whether cells stand in single quotation marks: the first row below the names begins with one,
    and the rows read so have as many cells as there are names. Apostrophes do not read so."""
    try:
        with path.open(encoding=encoding, newline=None) as file:
            second = [file.readline(_FIRST_LINE) for _ in range(2)][1]
        if not second.startswith("'"):
            return False
        found = islice(_rows(path, encoding, delimiter, quote="'"), _SAMPLE_RECORDS)
        header, *rows = [cells for _, cells in found]
    except (UnicodeError, DataUnreadable, ValueError):
        return False
    full = [cells for cells in rows if cells]
    return len(header) > 1 and all(len(cells) == len(header) for cells in full)


def _is_spaced(path: Path, encoding: str, delimiter: str, quote: str) -> bool:
    """Whether a space stands between what separates names of columns and their quotation marks."""
    try:
        with path.open(encoding=encoding, newline=None) as file:
            return any(f"{delimiter} {quote}" in file.readline(_FIRST_LINE) for _ in range(2))
    except UnicodeError:
        return False


def _in_words(error: csv.Error) -> str:
    """What the parser means, for who never saw it."""
    said = str(error)
    for part, words in _SAID.items():
        if part in said:
            return words
    return said


def names_columns(path: Path, options: ReadOptions) -> bool:
    """Whether the text begins with the names of a table's columns, a question and an answer or
    what was named."""
    try:
        columns = read_delimited(path, options).columns
    except (DataUnreadable, InvalidRequest):
        return False
    return len(columns) > 1 and name_a_pair(columns, options.wanted)


def _excel_hint(path: Path, encoding: str) -> str | None:
    """The delimiter in a first line such as `sep=;`, which Excel reads and writes."""
    try:
        with path.open(encoding=encoding, newline=None) as file:
            first = file.readline(_HINT).strip().strip('"')
    except UnicodeError:
        return None
    is_hint = first.lower().startswith("sep=") and len(first) == len("sep=") + 1
    return first[-1] if is_hint and first[-1] not in '"\r\n' else None


def _given(delimiter: str | None) -> str | None:
    names = {name: sign for sign, name in _NAMES.items()} | {"\\t": "\t"}
    if delimiter is None:
        return None
    sign = names.get(delimiter.lower(), delimiter)
    if len(sign) != 1 or sign in '"\r\n':
        raise DataUnreadable(
            "A delimiter is one character.",
            param="delimiter",
            remedy="Use comma, semicolon, tab, bar or one character.",
        )
    return sign


def _find(path: Path, encoding: str, wanted: tuple[str, ...]) -> str:
    """The delimiter under which the header has what the user named, rows agree with the header,
    and there are most columns; a comma if none stands out."""
    return max(_DELIMITERS, key=lambda sign: _score(path, encoding, sign, wanted))


def _score(
    path: Path, encoding: str, delimiter: str, wanted: tuple[str, ...]
) -> tuple[int, bool, bool, float, int]:
    sample: list[list[str]] = []
    try:
        for _, cells in islice(_rows(path, encoding, delimiter), _SAMPLE_RECORDS):
            sample.append(cells)
        whole = True
    except DataUnreadable:
        whole = False
    header = sample[0] if sample else []
    names = {cell.strip().lower() for cell in header}
    named = sum(name.strip().lower() in names for name in wanted)
    if len(header) < 2:
        return (named, False, whole, 0.0, 0)
    rest = [cells for cells in sample[1:] if cells]
    agree = sum(len(cells) == len(header) for cells in rest) / len(rest) if rest else 1.0
    return (named, True, whole, round(agree, 1), len(header))
