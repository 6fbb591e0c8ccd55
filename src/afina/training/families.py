"""Rows that begin alike: which of a step's rows share a beginning, and how long it is.

A shared beginning is computed once a bin. It ends before the first token of any of its rows that a
loss looks at, so what is learned is learned in each row. Families are a pure function of the rows'
tokens, chosen so that as many tokens as possible need not be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.training.packing import Bin, Family

SHORTEST: Final = 16
"""Shorter beginnings cost more to share than to compute."""
_WIDEST: Final = 128
"""Rows of a family that the search looks at, so that its time grows with the rows alone."""


@dataclass(frozen=True)
class RowTokens:
    """What is computed of a row: its tokens up to the last one that a loss looks at, and the place
    of the first such one among them."""

    number: int
    ids: NDArray[np.int32]
    first_learned: int


def find_families(rows: Sequence[RowTokens]) -> tuple[Family, ...]:
    """The families of `rows`; each row is in one. Those without a shared beginning come last."""
    if not rows:
        return ()
    # equal beginnings are neighbours in this order
    ordered = sorted(rows, key=lambda row: (row.ids.tobytes(), row.number))
    alike = [_common(one, two) for one, two in pairwise(ordered)]
    families: list[Family] = []
    alone: list[int] = []
    for begin, end, shared in _cuts(ordered, alike):
        numbers = [row.number for row in ordered[begin:end]]
        if shared:
            families.append(Family(shared, tuple(sorted(numbers))))
        else:
            alone += numbers
    families.sort(key=lambda family: family.rows)
    if alone:
        families.append(Family(0, tuple(sorted(alone))))
    return tuple(families)


def _common(one: RowTokens, two: RowTokens) -> int:
    """The length of the beginning that two rows could share."""
    most = min(one.first_learned, two.first_learned)
    differ = np.flatnonzero(one.ids[:most] != two.ids[:most])
    return int(differ[0]) if len(differ) else most


def _cuts(ordered: Sequence[RowTokens], alike: Sequence[int]) -> list[tuple[int, int, int]]:
    """Neighbours taken together (begin, end, shared) so that the saved tokens are the most."""
    best = [(0, 0, 0)]  # of the first n rows: tokens saved, where the last family begins, shared
    for end in range(1, len(ordered) + 1):
        found = (best[end - 1][0], end - 1, 0)
        shared = len(ordered[end - 1].ids)
        for begin in range(end - 2, max(-1, end - 1 - _WIDEST), -1):
            shared = min(shared, alike[begin])
            if shared < SHORTEST:
                break
            saved = best[begin][0] + (end - begin - 1) * shared
            if saved > found[0]:
                found = (saved, begin, shared)
        best.append(found)
    cuts: list[tuple[int, int, int]] = []
    end = len(ordered)
    while end:
        _, begin, shared = best[end]
        cuts.append((begin, end, shared))
        end = begin
    return cuts


def pack_families(
    families: Sequence[Family], lengths: Mapping[int, int], capacities: Sequence[int]
) -> tuple[Bin, ...]:
    """Bins for the rows of `families`: longest first, into a bin that holds the row's beginning
    already if one has room, else into the fullest one. Each bin takes the smallest capacity that
    fits. Raises ValueError for a row longer than every capacity."""
    largest = max(capacities)
    bins: list[_OpenBin] = []
    for family in families:
        for row in sorted(family.rows, key=lambda r: (-lengths[r], r)):
            if lengths[row] > largest:
                raise ValueError(
                    f"row {row} has {lengths[row]} tokens; the largest bin holds {largest}"
                )
            own = lengths[row] - family.shared
            fitting = [b for b in bins if b.used + own + b.missing(family) <= largest]
            if not fitting:
                fitting = [_OpenBin(len(bins))]
                bins += fitting
            chosen = min(fitting, key=lambda b: (b.missing(family), -b.used, b.number))
            chosen.used += own + chosen.missing(family)
            chosen.families.setdefault(family, []).append(row)
    return tuple(one.closed(capacities) for one in bins)


@dataclass
class _OpenBin:
    """A bin that still takes rows."""

    number: int
    used: int = 0
    families: dict[Family, list[int]] = field(default_factory=dict)

    def missing(self, family: Family) -> int:
        """Tokens of the family's beginning that this bin would have to take in."""
        return 0 if family in self.families else family.shared

    def closed(self, capacities: Sequence[int]) -> Bin:
        together = tuple(
            Family(family.shared if len(rows) > 1 else 0, tuple(rows))
            for family, rows in self.families.items()
        )
        numbers = tuple(row for family in together for row in family.rows)
        capacity = min(c for c in capacities if c >= self.used)
        return Bin(numbers, capacity, together)
