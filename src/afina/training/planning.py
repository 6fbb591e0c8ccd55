"""Which bins rows go into, from their tokens alone: no torch, so that estimates plan as runs do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from afina.training.families import RowTokens, find_families, pack_families
from afina.training.packing import Bin, Family


class Rows(Protocol):
    """What the loop needs of shards: tokenised rows by number."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]: ...

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...


def needed_tokens(learned: NDArray[np.bool_]) -> tuple[int, int]:
    """How many tokens of a row have to be computed, and the place of the first whose logits a loss
    looks at. What follows the last such token changes nothing; 0 where nothing is learned."""
    places = np.flatnonzero(learned[1:])
    return (int(places[-1]) + 1, int(places[0])) if len(places) else (0, 0)


def plan_bins(
    rows: Rows, chosen: Sequence[int], capacities: Sequence[int], *, share: bool = True
) -> tuple[Bin, ...]:
    """Bins for the chosen rows, where `share` says so with their common beginnings once a bin.
    Rows without a learned token are in none."""
    lengths: dict[int, int] = {}
    needed: list[RowTokens] = []
    for number in chosen:
        ids, learned = rows.row(number)
        count, first = needed_tokens(learned)
        if count:
            lengths[number] = count
            needed.append(RowTokens(number, ids[:count], first))
    alone = Family(0, tuple(row.number for row in needed))
    families = find_families(needed) if share else (alone,)
    return pack_families(families, lengths, capacities)


def pair_bins(
    rows: Rows, pairs: Sequence[int], capacities: Sequence[int], *, share: bool = True
) -> tuple[Bin, ...]:
    """Bins for whole pairs: the longest first into the fullest bin that has room."""
    largest = max(capacities)
    sizes = {pair: sum(_needed(rows, row) for row in (2 * pair, 2 * pair + 1)) for pair in pairs}
    groups: list[tuple[int, list[int]]] = []
    for pair in sorted(pairs, key=lambda p: (-sizes[p], p)):
        fitting = [i for i, (used, _) in enumerate(groups) if used + sizes[pair] <= largest]
        if not fitting:
            groups.append((sizes[pair], [pair]))
            continue
        best = max(fitting, key=lambda i: (groups[i][0], -i))
        groups[best] = (groups[best][0] + sizes[pair], [*groups[best][1], pair])
    found: list[Bin] = []
    for _, members in groups:
        both = sorted(row for pair in members for row in (2 * pair, 2 * pair + 1))
        found += plan_bins(rows, both, capacities, share=share)
    return tuple(found)


def _needed(rows: Rows, row: int) -> int:
    return needed_tokens(rows.row(row)[1])[0]
