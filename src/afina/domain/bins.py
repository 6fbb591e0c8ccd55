"""Sizes of bins: some fixed ones, because each new shape of a matrix product costs a new kernel.

A size that is new to a run costs about 20 ms, once; a token of padding costs a token's time in each
step. Steps of 32 tokens up to 1,024 and of 64 up to 2,048 cost least together. A bin of 2,048 runs
at the machine's full rate, so bins are only larger where one row needs it.
"""

from __future__ import annotations

from typing import Final

USUAL_LARGEST: Final = 2048
_USUAL: Final = (*range(64, 1025, 32), *range(1088, USUAL_LARGEST + 1, 64))


def bin_capacities(longest_row: int) -> tuple[int, ...]:
    """The capacities for data whose longest row has `longest_row` tokens."""
    capacities = [*_USUAL]
    while capacities[-1] < longest_row:
        capacities.append(capacities[-1] + 256)
    return tuple(capacities)
