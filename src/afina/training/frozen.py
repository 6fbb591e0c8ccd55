"""What the frozen part of a network says about each row, computed once and kept on disk.

    FOLDER/outputs.bin    [tokens, hidden] of each row that learns, in the rows' order
           record.json    what it was made from, and how many rows are there; written after them

Rows are computed in fixed chunks, each packed by itself, so that what a row's output is does not
depend on when it was computed or on where a run was killed. Only the tokens that a loss needs are
kept (afina.training.bins.needed_tokens).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from afina.domain.codec import decode, encode
from afina.training.bins import BinTensors, Rows, needed_tokens
from afina.training.packing import Bin, Family
from afina.training.signals import Interrupted

CHUNK_ROWS: Final = 64
RECORD_EVERY: Final = 16
"""Chunks between two records: what a kill can cost."""
SHARE_OF_DISK: Final = 0.5
_OUTPUTS: Final = "outputs.bin"
_RECORD: Final = "record.json"


class NoRoom(Exception):
    """The outputs would take more than half of what the disk has left."""


@dataclass(frozen=True)
class StoreRecord:
    """record.json."""

    key: str
    rows_done: int
    tokens: int
    hidden: int


@dataclass(frozen=True)
class FrozenBin(BinTensors):
    """A bin with what crosses into the tuned part."""

    crossing_1TH: torch.Tensor


class FrozenRows:
    """Rows together with the frozen part's output for each."""

    def __init__(self, rows: Rows, folder: Path, hidden: int, dtype: torch.dtype) -> None:
        self._rows = rows
        self._hidden = hidden
        self._dtype = dtype
        counts = [needed_tokens(rows.row(index)[1])[0] for index in range(len(rows))]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._folder = folder
        self._map: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self._rows.lengths

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return self._rows.row(index)

    @property
    def bytes(self) -> int:
        """Of all outputs."""
        return int(self._starts[-1]) * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self._hidden * self._dtype.itemsize

    def open(self, key: str) -> int:
        """Makes the file, or takes up the one that is there; how many rows of it are done. Raises
        NoRoom."""
        done = self._done(key)
        path = self._folder / _OUTPUTS
        if done == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            if self.bytes > SHARE_OF_DISK * shutil.disk_usage(self._folder).free:
                raise NoRoom
            with path.open("wb") as file:
                file.truncate(max(self.bytes, 1))
        self._map = np.memmap(path, dtype=np.uint8, mode="r+")
        return done

    def _done(self, key: str) -> int:
        try:
            raw = json.loads((self._folder / _RECORD).read_bytes())
            record = decode(StoreRecord, raw, _RECORD)
            size = (self._folder / _OUTPUTS).stat().st_size
        except (OSError, ValueError):
            return 0
        whole = record.key == key and record.tokens == self._starts[-1] and size >= self.bytes
        return record.rows_done if whole and record.hidden == self._hidden else 0

    def note(self, key: str, rows_done: int) -> None:
        """Says durably that so many rows are there."""
        assert isinstance(self._map, np.memmap)
        self._map.flush()
        record = StoreRecord(key, rows_done, int(self._starts[-1]), self._hidden)
        partial = self._folder / f".{_RECORD}"
        with partial.open("w") as file:
            json.dump(encode(record), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / _RECORD)

    def output(self, index: int) -> torch.Tensor:
        """`[needed, H]` of a row, a view of the file."""
        assert self._map is not None
        begin, end = (int(place) * self._row_bytes for place in self._starts[index : index + 2])
        flat = torch.from_numpy(self._map[begin:end]).view(self._dtype)
        return flat.view(-1, self._hidden)

    def keep(self, packed: Bin, crossing_TH: torch.Tensor) -> None:
        """Stores what a bin's rows gave."""
        for row, place, start, count in _places(self, packed):
            self.output(row)[place : place + count] = crossing_TH[start : start + count]

    def gather(self, packed: Bin) -> torch.Tensor:
        """`[1, T, H]` of a bin; padding is 0."""
        out = torch.zeros(packed.capacity, self._hidden, dtype=self._dtype)
        written = 0
        for row, place, start, count in _places(self, packed):
            if start >= written:
                out[start : start + count] = self.output(row)[place : place + count]
                written = start + count
        return out[None]


def _places(rows: Rows, packed: Bin) -> list[tuple[int, int, int, int]]:
    """(row, place in it, place in the bin, tokens) of all that the bin's rows need; a beginning
    that a family shares is named for each of its rows."""
    found = []
    used = 0
    for family in packed.families or (Family(0, packed.rows),):
        shared_at = used
        used += family.shared
        for row in family.rows:
            count = needed_tokens(rows.row(row)[1])[0]
            if family.shared:
                found.append((row, 0, shared_at, family.shared))
            found.append((row, family.shared, used, count - family.shared))
            used += count - family.shared
    return found


def fill(
    rows: FrozenRows,
    key: str,
    compute: Callable[[Rows, range], list[tuple[Bin, torch.Tensor]]],
    interrupted: Callable[[], bool],
) -> None:
    """Computes what is not there yet. Raises Interrupted if the callback says so between chunks,
    and NoRoom."""
    done = rows.open(key)
    for number, start in enumerate(range(done, len(rows), CHUNK_ROWS)):
        if interrupted():
            raise Interrupted
        end = min(start + CHUNK_ROWS, len(rows))
        for packed, crossing_TH in compute(rows, range(start, end)):
            rows.keep(packed, crossing_TH)
        if end == len(rows) or number % RECORD_EVERY == RECORD_EVERY - 1:
            rows.note(key, end)
