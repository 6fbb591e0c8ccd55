"""Cells of a sheet that are not what they seem: merged ones, and errors in place of values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from afina.data.remarks import Remark, remark

_ERRORS: Final = frozenset(
    {"#REF!", "#N/A", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}
)
_MERGED: Final = re.compile(rb'<mergeCell ref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"')
_HIDDEN: Final = re.compile(rb'<row r="(\d{1,7})"[^>]*\shidden="(?:1|true)"')
_ROW: Final = re.compile(rb'<row r="(\d{1,7})"')
_BLOCK: Final = 1 << 20
_OVERLAP: Final = 256

Merged = Mapping[int, Sequence[tuple[int, int]]]
"""By the line in which they begin: first columns (from 0) and last lines of merged cells."""


@dataclass
class SheetCells:
    """Looks at the rows of a sheet in their order; what was found is told once all are read."""

    merged: Merged
    notes: list[Remark]
    _open: dict[int, tuple[int, str]] = field(default_factory=dict)
    _filled: int = 0
    _errors: int = 0
    _first_error: tuple[str, str] | None = None

    def look(self, line: int, cells: list[str]) -> None:
        """Gives a row the values of merged cells that it is in, and counts errors."""
        for column, (last, value) in list(self._open.items()):
            if line > last:
                del self._open[column]
            elif column >= len(cells) or not cells[column]:
                cells.extend([""] * (column + 1 - len(cells)))  # a row ends with its last value
                cells[column] = value
                self._filled += 1
        for column, last in self.merged.get(line, ()):
            if column < len(cells) and cells[column]:
                self._open[column] = (last, cells[column])
        for place, cell in enumerate(cells):
            if cell[:1] == "#" and cell in _ERRORS:
                self._errors += 1
                self._first_error = self._first_error or (cell, f"{letters(place)}{line}")

    def tell(self) -> None:
        """Adds what was found to the notes."""
        if self._filled:
            self.notes.append(remark("merged", n=self._filled))
        if self._first_error is not None:
            error, cell = self._first_error
            self.notes.append(remark("cell_errors", n=self._errors, error=error, cell=cell))


def letters(place: int) -> str:
    """The name of a column, from 0: A, B, ... AA."""
    name = ""
    while place >= 0:
        place, rest = divmod(place, 26)
        name = chr(ord("A") + rest) + name
        place -= 1
    return name


@dataclass(frozen=True)
class SheetFacts:
    """Cells that were merged downwards, and the last row's line, 0 where it is not known."""

    merged: Merged
    last_line: int
    hidden: int = 0
    """Rows that a reader of the sheet does not see, as where a filter is on."""
    first_hidden: int = 0


def look_through(sheet: Any) -> SheetFacts:
    """What the sheet's own part of the workbook says, where the list of merged cells stands behind
    the rows; nothing where that part cannot be found."""
    path = getattr(sheet, "_worksheet_path", None)
    archive = getattr(sheet.parent, "_archive", None)
    found: dict[int, list[tuple[int, int]]] = {}
    hidden: set[int] = set()
    last_line = 0
    if path is None or archive is None:
        return SheetFacts(found, last_line)
    try:
        with archive.open(path) as part:
            kept = b""
            while block := part.read(_BLOCK):
                text = kept + block
                for match in _MERGED.finditer(text):
                    left, top, _, bottom = match.groups()
                    if top != bottom:  # of a wide one the first column holds the value
                        entry = (_place(left), int(bottom))
                        rows = found.setdefault(int(top), [])
                        rows += [entry] if entry not in rows else []
                hidden.update(int(match.group(1)) for match in _HIDDEN.finditer(text))
                last = _ROW.match(text, text.rfind(b"<row "))
                last_line = int(last.group(1)) if last else last_line
                kept = text[-_OVERLAP:]
    except Exception:  # noqa: BLE001  (what is damaged is said where the rows are read)
        return SheetFacts({}, last_line)
    return SheetFacts(found, last_line, len(hidden), min(hidden, default=0))


def _place(name: bytes) -> int:
    place = 0
    for sign in name:
        place = 26 * place + sign - ord("A") + 1
    return place - 1
