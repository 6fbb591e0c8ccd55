"""Which rows a step learns from and in which bins: pure functions of numbers.

An epoch's order is a permutation keyed by seed and epoch; a step takes `batch_size` rows of it
(the last step of an epoch what is left); a step's rows are packed into bins, never across steps.
No row is dropped, split or repeated, and no random state has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afina.domain.mixing import mixed_key


@dataclass(frozen=True)
class Family:
    """Rows whose first `shared` tokens are the same and are computed once; 0: none are."""

    shared: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Bin:
    """Rows that go through the network together, in a tensor of `capacity` tokens."""

    rows: tuple[int, ...]
    capacity: int
    families: tuple[Family, ...] = ()
    """The same rows, by what they share (afina.training.families); empty: they share nothing."""


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """afina.domain.mixing.splitmix64, of many numbers."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch's rows."""
    key = np.uint64(mixed_key(seed, epoch))
    return np.argsort(_mixed(np.arange(rows, dtype=np.uint64) ^ key), kind="stable")


def steps_in_epoch(rows: int, batch_size: int) -> int:
    """Steps of an epoch: the last one may be short."""
    return math.ceil(rows / batch_size)


def rows_of_step(order: NDArray[np.int64], batch_size: int, step_in_epoch: int) -> tuple[int, ...]:
    """The rows of one step of an epoch."""
    start = step_in_epoch * batch_size
    return tuple(int(row) for row in order[start : start + batch_size])


def pack_rows(
    rows: Sequence[int], lengths: Sequence[int] | NDArray[np.int64], capacities: Sequence[int]
) -> tuple[Bin, ...]:
    """Bins for `rows`: longest first into the fullest bin that has room, and then each bin takes
    the smallest capacity that fits. Raises ValueError for a row longer than every capacity."""
    largest = max(capacities)
    open_bins: list[tuple[int, list[int]]] = []
    for row in sorted(rows, key=lambda r: (-int(lengths[r]), r)):
        length = int(lengths[row])
        if length > largest:
            raise ValueError(f"row {row} has {length} tokens; the largest bin holds {largest}")
        fitting = [i for i, (used, _) in enumerate(open_bins) if used + length <= largest]
        if not fitting:
            open_bins.append((length, [row]))
            continue
        best = max(fitting, key=lambda i: (open_bins[i][0], -i))
        used, members = open_bins[best]
        open_bins[best] = (used + length, [*members, row])
    return tuple(
        Bin(tuple(members), min(c for c in capacities if c >= used)) for used, members in open_bins
    )
