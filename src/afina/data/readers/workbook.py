"""XLSX: one sheet by its name, values as a reader of the sheet would see them.

Formulas give the value that was stored with them; numbers and dates become text.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from afina.data.cells import moment_text
from afina.data.readers.delimited import EMPTY_ROW, MORE_CELLS
from afina.data.readers.disguises import by_content
from afina.data.readers.header import find_header
from afina.data.readers.records import (
    Dropped,
    Place,
    ReadOptions,
    Record,
    Source,
    unique_columns,
)
from afina.data.readers.sheet_cells import SheetCells, look_through
from afina.data.remarks import Remark, remark
from afina.errors import DataUnreadable, InvalidRequest

_MAX_UNPACKED: Final = 2 << 30
"""A workbook is a zip; one that unpacks to more is refused before it is read."""
_LOOKED_AGAIN: Final = 8 << 20
_FORMULA_ROWS: Final = 100
_SHOWN_DIGITS: Final = 15
"""A sheet stores 17 and shows no more than these: 0.1 + 0.2 is 0.3 there."""
_NOUGHTS: Final = re.compile(r"00+")
"""A format that shows so many digits at least: 00000 shows 7 as 00007."""
_UNSUSPECTED: Final = 16 << 20
_MOST_PACKED: Final = 200
"""A part that unpacks to more than this many times its size, and to more than UNSUSPECTED bytes, is
made to fill memory: texts of a sheet unpack to ten times, the emptiest grid to a hundred."""


def read_workbook(path: Path, options: ReadOptions) -> Source:
    """A sheet whose first row that is not empty holds the names of columns."""
    book = _open(path)
    try:
        sheet = _choose(book, path, options.sheet)
    except (InvalidRequest, DataUnreadable):
        book.close()
        raise
    facts = look_through(book[sheet])
    place = Place(facts.last_line)
    rows = _rows(book, _as_it_is(book[sheet]), place)
    header = find_header(rows, options.wanted)
    others = _others(book, sheet)
    if header is None:
        raise DataUnreadable(
            f"The sheet {sheet!r} of {path.name} is empty.",
            param="sheet",
            remedy=others.text if others else "Give a sheet with names of columns and rows below.",
            code="file_no_rows",
        )
    names = list(header.names)
    while names and not names[-1]:
        names.pop()
    columns = unique_columns(names)
    notes = [header.note] if header.note else []
    notes += _odd_cells(path, sheet, header.line)
    if facts.hidden:
        notes.append(remark("hidden_rows", n=facts.hidden, line=facts.first_hidden))
    if others is not None:
        notes.append(others)
    records = _records(header.rows, columns, SheetCells(facts.merged, notes))
    return Source(columns=columns, records=records, sheet=sheet, notes=notes, place=place)


def _others(book: Any, chosen: str) -> Remark | None:
    """Sheets that a reader of the workbook does not see, and that were not read."""
    hidden = [s.title for s in book.worksheets if s.sheet_state != "visible" and s.title != chosen]
    if not hidden:
        return None
    return remark("hidden_sheets", names=", ".join(map(repr, hidden)))


def visible_sheets(path: Path) -> tuple[str, ...]:
    """The names of the sheets that a reader of the workbook sees. Raises DataUnreadable."""
    with closing(_open(path)) as book:
        return tuple(str(s.title) for s in book.worksheets if s.sheet_state == "visible")


def _open(path: Path) -> Any:
    import openpyxl  # slow to import, and few need it

    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _MAX_UNPACKED:
                raise DataUnreadable(
                    f"{path.name} unpacks to more than 2 GiB.", remedy="Save the sheet as CSV."
                )
            for entry in packed.infolist():
                if entry.file_size > max(_UNSUSPECTED, _MOST_PACKED * entry.compress_size):
                    raise DataUnreadable(
                        f"{path.name} holds a part that unpacks to "
                        f"{entry.file_size // max(1, entry.compress_size):,} times its size.",
                        remedy="Save the sheet as CSV.",
                    )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions that hold no text
            return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except DataUnreadable:
        raise
    except Exception as error:  # noqa: BLE001  (the package raises whatever its parts raise)
        found = by_content(path)
        if found is not None:
            raise found.refusal(path.name) from None
        raise DataUnreadable(
            f"{path.name} cannot be read as a workbook: {type(error).__name__}.",
            remedy="Save it again as .xlsx, or as CSV.",
            code="file_damaged",
        ) from None


def _odd_cells(path: Path, sheet: str, header: int) -> list[Remark]:
    """What cells near the top are not as they are seen: formulas without a value, as programs
    write them that do not compute, percentages, noughts in front that are shown and not stored,
    and numbers that a sheet has rounded. The workbook is opened again, so only small ones are
    looked at."""
    import openpyxl

    if path.stat().st_size > _LOOKED_AGAIN:
        return []
    found: dict[str, str] = {}
    last = header + _FORMULA_ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with (
                closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as first,
                closing(openpyxl.load_workbook(path, read_only=True)) as second,
            ):
                stored, written = (
                    _as_it_is(book[sheet]).iter_rows(min_row=header, max_row=last)
                    for book in (first, second)
                )
                for values, formulas in zip(stored, written, strict=False):
                    for value, formula in zip(values, formulas, strict=False):
                        if formula.data_type == "f" and value.value is None:
                            found.setdefault("formulas", str(formula.coordinate))
                        elif (name := _oddity(value)) is not None:
                            found.setdefault(name, str(value.coordinate))
        except Exception:  # noqa: BLE001  (what is damaged is said where the rows are read)
            return []
    names = ("formulas", "percentages", "noughts", "long_numbers")
    return [remark(name, cell=found[name]) for name in names if name in found]


def _oddity(cell: Any) -> str | None:
    """The name of what is to be said of a number that is not stored as it is seen."""
    value = cell.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and "%" in cell.number_format:
        return "percentages"
    if abs(value) >= 10**_SHOWN_DIGITS:
        return "long_numbers"
    places = _NOUGHTS.fullmatch(cell.number_format)
    return "noughts" if places and abs(value) < 10.0 ** (len(places[0]) - 1) else None


def _as_it_is(sheet: Any) -> Any:
    """The sheet without the size that the file claims for it: some programs write too small a one,
    and cells would be lost; a stray cell in the last corner makes it endless."""
    sheet.reset_dimensions()
    return sheet


def _choose(book: Any, path: Path, wanted: str | None) -> str:
    names = [sheet.title for sheet in book.worksheets]
    if wanted is not None:
        for name in names:
            if name.strip().lower() == wanted.strip().lower():
                return str(name)
        raise InvalidRequest(
            f"{path.name} has no sheet {wanted!r}; it has {', '.join(map(repr, names))}.",
            param="sheet",
        )
    visible = [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if len(visible) == 1:
        return str(visible[0])
    if not names:
        raise DataUnreadable(
            f"{path.name} holds charts and no sheet with cells.",
            param="sheet",
            remedy="Bring the workbook with the numbers and texts that they are drawn from.",
            code="file_charts",
        )
    raise InvalidRequest(
        f"{path.name} has {len(visible)} visible sheets: {', '.join(map(repr, visible or names))}.",
        param="sheet",
        remedy="Name one with --sheet.",
    )


def _rows(book: Any, sheet: Any, place: Place) -> Iterator[tuple[int, list[str]]]:
    """The sheet's rows; the workbook is closed behind the last, or where nobody wants more."""
    line = 0
    place.follow(lambda: line)
    try:
        for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
            yield line, [_text(value) for value in values]
    except Exception as error:  # noqa: BLE001  (as above: broken XML, cells without meaning)
        raise DataUnreadable(
            f"The sheet {sheet.title!r} is damaged: {type(error).__name__}.",
            remedy="Save the workbook again.",
            code="file_damaged",
        ) from None
    finally:
        book.close()


def _records(
    rows: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], found: SheetCells
) -> Iterator[Record | Dropped]:
    for line, cells in rows:
        found.look(line, cells)
        if not any(cell.strip() for cell in cells):
            yield Dropped(line, EMPTY_ROW)
        elif any(cell.strip() for cell in cells[len(columns) :]):
            yield Dropped(line, MORE_CELLS)
        else:
            short = [""] * (len(columns) - len(cells))
            yield Record(line, dict(zip(columns, [*cells, *short], strict=False)))
    found.tell()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        shown = f"{value:.{_SHOWN_DIGITS}g}"
        return f"{Decimal(shown):f}" if 1e15 <= abs(value) < 1e21 else shown
    return moment_text(value) or str(value)
