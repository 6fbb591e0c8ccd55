"""Sizes of bins: a few fixed ones, because each new shape of a matrix product costs a new kernel.

Steps of 128 tokens up to 1,024 and of 256 up to 2,048 keep the padding small; a bin of 2,048
runs at the machine's full rate, so bins are only larger where one row needs it.
"""

from __future__ import annotations

from typing import Final

USUAL_LARGEST: Final = 2048
_USUAL: Final = (*range(128, 1025, 128), *range(1280, USUAL_LARGEST + 1, 256))


def bin_capacities(longest_row: int) -> tuple[int, ...]:
    """The capacities for data whose longest row has `longest_row` tokens."""
    capacities = [*_USUAL]
    while capacities[-1] < longest_row:
        capacities.append(capacities[-1] + 1024)
    return tuple(capacities)
