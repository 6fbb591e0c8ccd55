"""Pairs of rows that are alike: candidates from the index, each compared exactly."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.data.content.index import BAND_COLUMNS, NO_ANSWER, RowIndex
from afina.data.content.shingles import THRESHOLD, WIDTH, similarity

_MAX_COMPARED: Final = 400_000
"""Pairs whose texts are read again: about half a minute."""
_NONE: Final = np.zeros(0, np.int64)


class Pairs:
    """(row, an earlier row) in columns, and whether both say exactly the same."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = []

    def add(self, rows: NDArray[np.int64], firsts: NDArray[np.int64], exact: bool) -> None:
        """Some more pairs."""
        if len(rows):
            self._parts.append((rows, firsts, np.full(len(rows), exact)))

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """All of them, by row."""
        if not self._parts:
            return _NONE, _NONE, np.zeros(0, np.bool_)
        rows, firsts, exact = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(rows, kind="stable")
        return rows[order], firsts[order], exact[order]


class Comparison:
    """Compares when it is made; then each file's pairs can be asked for."""

    def __init__(self, index: RowIndex, texts: int, say: Callable[[int, int], None]) -> None:
        self._index = index
        self._texts = texts
        self._lines = index.column("line")
        self.complete = True
        pairs = self._compare(say)
        self._rows, self._firsts, self._exact = pairs.all()
        self._here = index.files_of(self._rows)
        self._there = index.files_of(self._firsts)

    def near(self, file: int, most: int) -> tuple[list[tuple[int, int]], int]:
        """The first (line, earlier line) of rows of one file that say nearly the same, and how
        many there are; those that are equal byte for byte apart, which have a rule of their own."""
        raw = self._index.column("raw")
        chosen = np.flatnonzero((self._here == file) & (self._there == file))
        chosen = chosen[raw[self._rows[chosen]] != raw[self._firsts[chosen]]]
        return self._named(chosen[:most]), len(chosen)

    def leaks(self, file: int, most: int) -> tuple[list[tuple[int, int, bool]], int]:
        """The first (line, line of an earlier file, exactly the same) for rows of this file."""
        chosen = np.flatnonzero((self._here == file) & (self._there != file))
        some = chosen[:most]
        exact = self._exact[some].tolist()
        lines = zip(self._named(some), exact, strict=True)
        return [(line, earlier, same) for (line, earlier), same in lines], len(chosen)

    def contradictions(self, file: int, most: int) -> tuple[list[tuple[int, int]], int]:
        """The first (line, earlier line) of rows of one file with the same context and other
        answers, and how many there are."""
        answers = self._index.column("answer")
        rows, firsts = self._index.equal_rows("context")
        here, there = answers[rows], answers[firsts]
        differ = (here != there) & (here != NO_ANSWER) & (there != NO_ANSWER)
        rows, firsts = rows[differ], firsts[differ]
        ours = (self._index.files_of(rows) == file) & (self._index.files_of(firsts) == file)
        rows, firsts = rows[ours], firsts[ours]
        lines = self._lines[rows[:most]].tolist(), self._lines[firsts[:most]].tolist()
        return list(zip(*lines, strict=True)), len(rows)

    def _named(self, places: NDArray[np.int64]) -> list[tuple[int, int]]:
        lines = self._lines[self._rows[places]].tolist()
        return list(zip(lines, self._lines[self._firsts[places]].tolist(), strict=True))

    def _compare(self, say: Callable[[int, int], None]) -> Pairs:
        """Each row is said once: with the first row in a band that proves to be alike."""
        pairs = Pairs()
        raw, sizes = self._index.column("raw"), self._index.column("size")
        offsets = self._index.column("offset")
        done = np.zeros(self._index.rows, np.bool_)
        compared = 0
        for band, name in enumerate(BAND_COLUMNS):
            say(band, len(BAND_COLUMNS))
            rows, firsts = self._index.equal_rows(name)
            new = ~done[rows]
            rows, firsts = rows[new], firsts[new]
            copies = raw[rows] == raw[firsts]
            done[rows[copies]] = True
            pairs.add(rows[copies], firsts[copies], exact=True)
            rows, firsts = rows[~copies], firsts[~copies]
            if compared + len(rows) > _MAX_COMPARED:
                self.complete = False
                rows, firsts = (some[: _MAX_COMPARED - compared] for some in (rows, firsts))
            compared += len(rows)
            small = np.minimum(sizes[rows], sizes[firsts])
            large = np.maximum(sizes[rows], sizes[firsts])
            # otherwise the shorter one cannot hold enough of the longer one's shingles
            fits = small >= THRESHOLD * (large - WIDTH)
            rows, firsts = rows[fits], firsts[fits]
            shares = self._shares(rows, firsts, offsets, sizes)
            done[rows[shares >= THRESHOLD]] = True
            pairs.add(rows[shares == 1.0], firsts[shares == 1.0], exact=True)
            near = (shares >= THRESHOLD) & (shares < 1.0)
            pairs.add(rows[near], firsts[near], exact=False)
            if not self.complete:
                break
        return pairs

    def _shares(
        self,
        rows: NDArray[np.int64],
        firsts: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """float64[rows]: how much of their text both share."""

        def text(row: int) -> bytes:
            return os.pread(self._texts, int(sizes[row]), int(offsets[row]))

        pairs = zip(rows.tolist(), firsts.tolist(), strict=True)
        return np.array([similarity(text(row), text(first)) for row, first in pairs], np.float64)
