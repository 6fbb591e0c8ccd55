"""The low-rank terms of a step's prompts: those of all adapters in two batched products a layer.

A prompt is cut into pieces of at most `PIECE` positions that have one page of an adapter each.
Pieces are padded to one length and multiply together, each with its own page, whatever their
number; what padding computes is left. One product for each prompt would be mostly the handing out
of small products: sixteen prompts of 45 positions took three times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, Protocol

import torch

from afina.serving.layout import rounded_rows

PIECE: Final = 64
_STEP: Final = 16

Block = tuple[int, int, int]
"""Start, length and page of a piece."""


class Tables(Protocol):
    """A product's pages: A `[pages, in, layers * ranks]`, B `[pages, blocks, ranks, block]`."""

    @property
    def a(self) -> torch.Tensor: ...
    @property
    def b(self) -> torch.Tensor: ...
    @property
    def layer_of_block(self) -> list[int]: ...


@dataclass
class Round:
    """Pieces that multiply together; no position is in two of them."""

    take: torch.Tensor
    """The step's position at each place, `[count * rows]`; in padding some other's."""
    pages: torch.Tensor
    """The page of each piece, `[count]`."""
    first: int
    last: int
    """The step's positions among which all pieces lie."""
    piece: torch.Tensor
    row: torch.Tensor
    """Where each of those positions is found: its piece, or -1, and its row there."""
    _back: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.pages)

    @property
    def rows(self) -> int:
        return len(self.take) // len(self.pages)

    def back(self, blocks: int) -> torch.Tensor:
        """For each block of columns of each position its row in `[count * blocks * rows + 1]`; the
        last one is for positions of no piece."""
        found = self._back.get(blocks)
        if found is None:
            place = self.piece[:, None] * blocks + torch.arange(blocks)
            found = place * self.rows + self.row[:, None]
            found[self.piece < 0] = self.count * blocks * self.rows
            found = self._back[blocks] = found.flatten()
        return found

    def add_to(self, out_TO: torch.Tensor, x_TI: torch.Tensor, tables: Tables) -> None:
        """Adds the pieces' terms for the step's inputs to its outputs, in place."""
        count, rows = self.count, self.rows
        _, blocks, ranks, block = tables.b.shape
        x = x_TI.index_select(0, self.take).view(count, rows, -1)
        low = torch.bmm(x, tables.a.index_select(0, self.pages))
        low = low.view(count, rows, -1, ranks).transpose(1, 2)
        if low.shape[1] == 1:
            low = low.expand(-1, blocks, -1, -1)
        else:
            low = low.index_select(1, torch.tensor(tables.layer_of_block))
        b = tables.b.index_select(0, self.pages).view(count * blocks, ranks, block)
        high = x.new_empty(count * blocks * rows + 1, block)
        high[-1].zero_()
        into = high[:-1].view(count * blocks, rows, block)
        torch.bmm(low.reshape(count * blocks, rows, ranks), b, out=into)
        found = high.index_select(0, self.back(blocks))
        out_TO[self.first : self.last].add_(found.view(self.last - self.first, -1))


def rounds_of(spans: Sequence[tuple[int, int, list[int]]]) -> list[Round]:
    """Spans of positions, each with the pages of its adapter: one round, or as many as the most
    pages of an adapter."""
    by_page = [[(start, stop, page) for page in pages] for start, stop, pages in spans]
    return [_round([one for one in together if one]) for together in zip_longest(*by_page)]


def _round(spans: Sequence[tuple[int, int, int]]) -> Round:
    pieces: list[Block] = [
        (at, min(PIECE, stop - at), page)
        for start, stop, page in spans
        for at in range(start, stop, PIECE)
    ]
    rows = -(-max(length for _, length, _ in pieces) // _STEP) * _STEP
    first, last = min(p[0] for p in pieces), max(p[0] + p[1] for p in pieces)
    piece, row = torch.full((last - first,), -1), torch.zeros(last - first, dtype=torch.int64)
    take: list[int] = []
    for number, (start, length, _) in enumerate(pieces):
        place = slice(start - first, start - first + length)
        piece[place], row[place] = number, torch.arange(length)
        take += range(start, start + length)
        take += [start] * (rows - length)
    # kernels are kept by shape: the count is one of a few
    missing = rounded_rows(len(pieces)) - len(pieces)
    take += [pieces[0][0]] * (missing * rows)
    pages = [page for _, _, page in pieces] + [pieces[0][2]] * missing
    return Round(torch.tensor(take), torch.tensor(pages), first, last, piece, row)


def weighted_sums(
    table: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """For each start the sum of the table's rows from there to the next start, weighted."""
    found: torch.Tensor = torch.ops.aten._embedding_bag_forward_only.default(
        table, rows, starts, False, 0, False, weights, False, -1
    )[0]
    return found
