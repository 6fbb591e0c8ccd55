"""Where each head of each token stands in the grids of a bin's attention, and the way back.

A layer's queries, keys and values are one `[T, Q + 2 G, D]`: Q query heads, G key heads, G value
heads. One gather takes all of them to where the products of all groups want them, one gather takes
results or gradients back. A place that nothing belongs to reads a row of zeros behind the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from afina.model.folding import NOTHING, Group

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Heads:
    """The heads of a layer: Q a multiple of G, each of `size` numbers."""

    queries: int
    keys: int
    size: int

    @property
    def all(self) -> int:
        """Rows that a token has in a layer's grids."""
        return self.queries + 2 * self.keys


@dataclass(frozen=True)
class Rows:
    """Where a group's queries, keys and values stand among the gathered rows."""

    group: Group
    q: slice
    k: slice
    v: slice
    out: slice
    """Its queries among those of all groups."""


class Grids:
    """The gathers of one bin, for layers with the same heads; made once a bin."""

    def __init__(self, groups: Sequence[Group], tokens: int, heads: Heads) -> None:
        self.heads = heads
        self.tokens = tokens
        self.rows: list[Rows] = []
        forth: list[Numbers] = []
        back = np.full(tokens * heads.all, -1)
        out_back = np.full(tokens * heads.queries, -1)
        self.gathered = self.queries = 0
        for group in groups:
            forth += self._add(group, back, out_back)
        back[back < 0] = self.gathered
        out_back[out_back < 0] = self.queries
        everything = np.concatenate([np.zeros(0, np.int64), *forth])
        self.forth = torch.from_numpy(np.maximum(everything, 0))
        """The row of `[T * (Q + 2 G), D]` at each place; in padding some token's."""
        self.back = torch.from_numpy(back)
        """For each row of `[T * (Q + 2 G), D]` its place among the gathered rows."""
        self.out_back = torch.from_numpy(out_back)
        """For each row of `[T * Q, D]` its place among all groups' queries."""
        grads = [self._out_forth(group) for group in groups]
        self.out_forth = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *grads]))
        """For each place among all groups' queries its row of `[T * Q, D]`, of zeros in padding."""

    def _add(self, group: Group, back: Numbers, out_back: Numbers) -> list[Numbers]:
        """Puts a group's rows behind those there are; the rows that they are gathered from."""
        heads, start = self.heads, self.gathered
        own, seen = _tokens(group, with_prefix=False), _tokens(group, with_prefix=True)
        before = group.prefix[1]
        own_keys = seen.copy()
        own_keys[:, :before] = -1
        q = _of_heads(own, 0, heads.queries, heads.all)
        k = _of_heads(seen, heads.queries, heads.keys, heads.all)
        v = _of_heads(seen, heads.queries + heads.keys, heads.keys, heads.all)
        ends = np.cumsum([start, len(q), len(k), len(v)])
        # what a prefix gets from each of its chats is summed apart
        for rows, at in (
            (q, ends[0]),
            (_of_heads(own_keys, heads.queries, heads.keys, heads.all), ends[1]),
            (_of_heads(own_keys, heads.queries + heads.keys, heads.keys, heads.all), ends[2]),
        ):
            _note(back, rows, int(at))
        _note(out_back, _of_heads(own, 0, heads.queries, heads.queries), self.queries)
        of_q, of_k, of_v = (slice(int(a), int(b)) for a, b in pairwise(ends))
        out = slice(self.queries, self.queries + len(q))
        self.rows.append(Rows(group, of_q, of_k, of_v, out))
        self.gathered, self.queries = int(ends[-1]), out.stop
        return [q, k, v]

    def _out_forth(self, group: Group) -> Numbers:
        queries = self.heads.queries
        found = _of_heads(_tokens(group, with_prefix=False), 0, queries, queries)
        return np.where(found < 0, self.tokens * queries, found)


def _note(back: Numbers, rows: Numbers, start: int) -> None:
    real = np.flatnonzero(rows >= 0)
    back[rows[real]] = real + start


def _of_heads(tokens_CL: Numbers, first: int, count: int, stride: int) -> Numbers:
    """Rows of some heads of a grid of tokens, chat by chat, head by head; -1 in padding."""
    heads = np.arange(first, first + count)[None, :, None]
    rows = tokens_CL[:, None, :] * stride + heads
    return np.where(tokens_CL[:, None, :] < 0, -1, rows).reshape(-1)


def _tokens(group: Group, *, with_prefix: bool) -> Numbers:
    """The token of the bin at each place of a group's grid; -1 in padding."""
    start, before = group.prefix if with_prefix else NOTHING
    width = group.key_length if with_prefix else group.length
    grid = np.full((group.count, width), -1)
    for row, (first, tokens) in zip(grid, group.spans, strict=False):
        row[:before] = np.arange(start, start + before)
        row[before : before + tokens] = np.arange(first, first + tokens)
    return grid
