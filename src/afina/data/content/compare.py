"""Pairs of rows that are alike: candidates from the index, each compared exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.data.content.index import NO_ANSWER, RowIndex
from afina.data.content.shingles import BANDS, THRESHOLD, WIDTH, similarity

_MAX_COMPARED: Final = 400_000
"""Pairs whose texts are read again: about half a minute."""


class Comparison:
    """Compares when it is entered; then each file's pairs can be asked for."""

    def __init__(self, index: RowIndex, texts: int) -> None:
        self._index = index
        self._texts = texts
        self.complete = True
        self._near: list[list[tuple[int, int]]] = []
        self._leaks: list[list[tuple[int, int, bool]]] = []

    def __enter__(self) -> Comparison:
        files = max(1, len(self._index.starts))
        self._near = [[] for _ in range(files)]
        self._leaks = [[] for _ in range(files)]
        self._lines = self._index.column("line")
        self._raw = self._index.column("raw")
        self._compare()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._lines, self._raw

    def near(self, file: int) -> list[tuple[int, int]]:
        """(line, earlier line) of rows of one file that say nearly the same; those that are equal
        byte for byte apart, which have a rule of their own."""
        return sorted(self._near[file])

    def leaks(self, file: int) -> list[tuple[int, int, bool]]:
        """(line, line of an earlier file, exactly the same) for rows of this file."""
        return sorted(self._leaks[file])

    def contradictions(self, file: int) -> Iterator[tuple[int, int]]:
        """(line, earlier line) of rows of one file with the same context and other answers."""
        answers = self._index.column("answer")
        for row, first in self._index.equal_rows("context"):
            known = NO_ANSWER not in (answers[row], answers[first])
            if known and answers[row] != answers[first] and self._index.file_of(row) == file:
                same_file = self._index.file_of(first) == file
                if same_file:
                    yield int(self._lines[row]), int(self._lines[first])

    def _compare(self) -> None:
        """Each row is said once: with the first row in a band that proves to be alike."""
        raw = self._raw
        sizes, offsets = self._index.column("size"), self._index.column("offset")
        done = np.zeros(self._index.rows, np.bool_)
        compared = 0
        for band in range(BANDS):
            for row, first in self._index.equal_rows(f"band{band}"):
                if done[row]:
                    continue
                if raw[row] == raw[first]:
                    done[row] = True
                    self._note(row, first, exact=True)
                    continue
                compared += 1
                if compared > _MAX_COMPARED:
                    self.complete = False
                    return
                small, large = sorted((int(sizes[row]), int(sizes[first])))
                if small < THRESHOLD * (large - WIDTH):
                    continue  # the shorter one cannot hold enough of the longer one's shingles
                share = similarity(
                    self._text(row, offsets, sizes), self._text(first, offsets, sizes)
                )
                if share >= THRESHOLD:
                    done[row] = True
                    self._note(row, first, exact=share == 1.0)

    def _note(self, row: int, first: int, exact: bool) -> None:
        here, there = self._index.file_of(row), self._index.file_of(first)
        lines = int(self._lines[row]), int(self._lines[first])
        if here != there:
            self._leaks[here].append((*lines, exact))
        elif self._raw[row] != self._raw[first]:
            self._near[here].append(lines)

    def _text(self, row: int, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
        return os.pread(self._texts, int(sizes[row]), int(offsets[row]))
