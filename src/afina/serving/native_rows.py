"""The rows of a step as the kernels read them, and the room they compute in.

Rows that were sampled come first, those of an adapter side by side. Everything here is numbers in
one piece: built anew for each step, checked against what they index.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from afina.model.kernels.step import PLACES, RANKS, Step, integers, phases
from afina.serving.layout import Row
from afina.serving.pages import Pages
from afina.serving.sequences import Plan

_PIECE: Final = 8
"""Positions of a prompt that attend together."""
_KIN: Final = 12
"""Rows of an adapter that are lowered together."""


def flat_rows(plan: Plan) -> list[Row]:
    """A plan's rows, one behind the other: decoding ones, checks of drafts, prompts; those of an
    adapter side by side."""
    decodes = [Row(s, s.computed, 1) for s in plan.decodes]
    checks = [Row(s, s.computed, 1 + len(s.draft)) for s in plan.checks]
    chunks = [Row(c.sequence, c.start, c.length) for c in plan.chunks]
    rows = sorted(decodes, key=_adapter) + sorted(checks, key=_adapter)
    rows += sorted(chunks, key=_adapter)
    at = 0
    for row in rows:
        row.at = at
        at += row.length
    return rows


def _adapter(row: Row) -> str:
    return row.sequence.prompt.adapter or ""


class StepRows:
    """A step's rows, and the struct that tells of them."""

    def __init__(
        self, rows: Sequence[Row], kept: Sequence[int], adapters: Pages, *, few_bits: bool
    ) -> None:
        self._arrays: list[array[int]] = []
        self.count = sum(row.length for row in rows)
        self.longest = max(row.stop for row in rows) - 1
        self.pieces = _pieces(rows)
        self._ids: list[int] = []
        self._tables: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for row in rows:
            blocks = row.sequence.blocks
            self._tables += blocks[: row.stop // PLACES + 1]
            self._ids += row.sequence.ids(row.start, row.stop)
            span = range(row.start, row.stop)
            positions += span
            slots += [blocks[p // PLACES] * PLACES + p % PLACES for p in span]
        names = [row.sequence.prompt.adapter for row in rows for _ in range(row.length)]
        of_kept = [names[at] for at in kept]
        self.step = step = Step(rows=self.count, kept_rows=len(kept))
        step.ids, step.positions = self._put(self._ids), self._put(positions)
        step.slots, step.kept = self._put(slots), self._put(kept)
        step.tables = self._put(self._tables)
        step.pieces = self._put([n for piece in self.pieces for n in piece])
        step.piece_count = len(self.pieces)
        small = _sampled(rows) if few_bits else [False] * self.count
        step.segments, step.segment_count = self._runs(small)
        step.kept_segments, step.kept_segment_count = self._runs([small[at] for at in kept])
        self.pages = 0
        step.kins, step.kin_count, step.first_page, step.pages = self._kin(names, adapters)
        found = self._kin(of_kept, adapters)
        step.kept_kins, step.kept_kin_count, step.kept_first_page, step.kept_pages = found

    def check(self, vocabulary: int, blocks: int) -> None:
        """Raises ValueError if a row would read or write where nothing is."""
        if not 0 <= min(self._ids) <= max(self._ids) < vocabulary:
            raise ValueError("an id that is not of the vocabulary")
        if not 0 <= min(self._tables) <= max(self._tables) < blocks:
            raise ValueError("a block that is not of the cache")

    def scores(self, ratio: int) -> int:
        """Numbers that the largest piece needs room for."""
        blocks = max((start + count - 1) // PLACES + 1 for _, count, start, _ in self.pieces)
        rows = max(count for _, count, _, _ in self.pieces) * ratio
        return rows * (blocks * PLACES + 1)

    def _put(self, numbers: Sequence[int]) -> int:
        held, where = integers(numbers)
        self._arrays.append(held)
        return where

    def _runs(self, small: Sequence[bool]) -> tuple[int, int]:
        numbers: list[int] = []
        at = 0
        for value, group in itertools.groupby(small):
            count = len(list(group))
            numbers += (at, count, int(value))
            at += count
        return self._put(numbers), len(numbers) // 3

    def _kin(self, names: Sequence[str | None], adapters: Pages) -> tuple[int, int, int, int]:
        """Neighbours of one adapter, and each row's pages."""
        kins: list[int] = []
        first = [0]
        pages: list[int] = []
        at = 0
        for name, group in itertools.groupby(names):
            count = len(list(group))
            if name is None:
                first += [len(pages)] * count
            else:
                own = adapters.pages_of(name)
                for _ in range(count):
                    pages += own
                    first.append(len(pages))
                for begin in range(at, at + count, _KIN):
                    kins += (begin, min(_KIN, at + count - begin))
            at += count
        self.pages = max(self.pages, len(pages))
        return self._put(kins), len(kins) // 2, self._put(first), self._put(pages)


@dataclass
class Rooms:
    """Where a step computes: kept from step to step, larger when a step needs it."""

    width: int
    wide: int
    heads: tuple[int, int]
    size: int
    _rows: int = 0
    _low: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bfloat16))
    _scores: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _sums: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _claims: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    _named: dict[str, torch.Tensor] = field(default_factory=dict)

    def fill(self, step: Step, rows: StepRows, layers: int, threads: int) -> None:
        """Tells a step where to compute."""
        heads, kv_heads = self.heads
        if rows.count > self._rows:
            self._rows = -(-rows.count // 64) * 64
            widths = {
                "h": self.width,
                "x": self.width,
                "qkv": (heads + 2 * kv_heads) * self.size,
                "seen": heads * self.size,
                "gate_up": 2 * self.wide,
                "wide": self.wide,
            }
            self._named = {
                name: torch.empty(self._rows, width, dtype=torch.bfloat16)
                for name, width in widths.items()
            }
        for name, room in self._named.items():
            setattr(step, name, room.data_ptr())
        low = rows.pages * 3 * RANKS
        if low > len(self._low):
            self._low = torch.empty(low, dtype=torch.bfloat16)
        scores = -(-rows.scores(heads // kv_heads) // 16) * 16
        if threads * scores > len(self._scores):
            self._scores = torch.empty(threads * scores)
        sums = self._rows * (max(self.width, self.wide, heads * self.size) // 32)
        if threads * sums > len(self._sums):
            self._sums = torch.empty(threads * sums)
        if not len(self._claims):
            self._claims = torch.empty(phases(layers) * 8, dtype=torch.int64)
        step.low, step.scores = self._low.data_ptr(), self._scores.data_ptr()
        step.claims, step.scores_size = self._claims.zero_().data_ptr(), scores
        step.sums, step.sums_size = self._sums.data_ptr(), sums
        step.threads = threads


def _pieces(rows: Iterable[Row]) -> list[tuple[int, int, int, int]]:
    found = []
    table = 0
    for row in rows:
        for begin in range(0, row.length, _PIECE):
            count = min(_PIECE, row.length - begin)
            found.append((row.at + begin, count, row.start + begin, table))
        table += len(row.sequence.blocks[: row.stop // PLACES + 1])
    return found


def _sampled(rows: Iterable[Row]) -> list[bool]:
    return [place >= row.prompted for row in rows for place in range(row.length)]
