"""A few bytes a row, in files: what is needed to find equal rows among millions in flat memory.

Columns are appended while rows go by, and mapped, one after the other, when they are compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from afina.data.content.shingles import BANDS

COLUMNS: Final = {
    "line": np.int64,
    "offset": np.int64,
    "size": np.int64,
    "raw": np.int64,
    "context": np.int64,
    "answer": np.int64,
    **{f"band{number}": np.uint64 for number in range(BANDS)},
}
NO_ANSWER: Final = 0
"""Stands for the answer of a row that has none."""


class RowIndex:
    """Columns of numbers in a folder. Rows are numbered in the order in which they were added; rows
    of a second file follow those of the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {name: (folder / name).open("wb") for name in COLUMNS}
        self.starts: array[int] = array("q")
        """The first row of each file."""
        self.rows = 0

    def next_file(self) -> None:
        """Rows from here on are another file's."""
        self.starts.append(self.rows)

    def add(self, columns: dict[str, NDArray[Any]]) -> None:
        """Many rows, a value of every column for each."""
        for name, kind in COLUMNS.items():
            self._files[name].write(np.ascontiguousarray(columns[name], dtype=kind).tobytes())
        self.rows += len(columns["line"])

    def close(self) -> None:
        """No more rows; columns can be read."""
        for file in self._files.values():
            file.close()

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, mapped."""
        if not self.rows:
            return np.zeros(0, COLUMNS[name])
        return np.memmap(self._folder / name, dtype=COLUMNS[name], mode="r")

    def file_of(self, row: int) -> int:
        """Which file a row is of."""
        return int(np.searchsorted(np.frombuffer(self.starts, np.int64), row, side="right")) - 1

    def equal_rows(self, name: str) -> Iterator[tuple[int, int]]:
        """(row, the first row with the same value) for each row that is not that first."""
        values = self.column(name)
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        same = np.zeros(len(order), np.bool_)
        same[1:] = ordered[1:] == ordered[:-1]
        firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        places = np.flatnonzero(same)
        for row, first in zip(order[places], order[firsts[places]], strict=True):
            yield int(row), int(first)
