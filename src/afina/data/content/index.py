"""A few bytes a row, in files: what is needed to find equal rows among millions in flat memory.

Columns are appended while rows go by, and mapped, one after the other, when they are compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from afina.data.content.shingles import BANDS
from afina.data.equal import equal_rows

BAND_COLUMNS: Final = tuple(f"band{number}" for number in range(BANDS))
COLUMNS: Final = {
    "line": np.int64,
    "offset": np.int64,
    "size": np.int64,
    "raw": np.int64,
    "context": np.int64,
    "answer": np.int64,
    **dict.fromkeys(BAND_COLUMNS, np.uint64),
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

    def add(self, columns: Mapping[str, bytes]) -> None:
        """Many rows: the bytes of every column."""
        for name, file in self._files.items():
            file.write(columns[name])
        self.rows += len(columns["line"]) // np.dtype(COLUMNS["line"]).itemsize

    def close(self) -> None:
        """No more rows; columns can be read."""
        for file in self._files.values():
            file.close()

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, mapped."""
        if not self.rows:
            return np.zeros(0, COLUMNS[name])
        return np.memmap(self._folder / name, dtype=COLUMNS[name], mode="r")

    def files_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which file each row is of."""
        starts = np.frombuffer(self.starts, np.int64)
        return np.searchsorted(starts, rows, side="right").astype(np.int64) - 1

    def equal_rows(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(rows, the first row with the same value of a column); see `afina.data.equal`."""
        return equal_rows(self.column(name))
