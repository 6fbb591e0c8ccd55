"""Equal values among millions: which rows repeat an earlier one, in memory for a copy or two."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_STEP: Final = 1 << 20


def equal_rows(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows, the first row with the same value), for each row that is not that first; ascending.

    Two sorts: one of the values alone, which tells those that stand more than once, and one of the
    few rows that have them.
    """
    ordered = np.sort(values)
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    rows = np.flatnonzero(_are_among(values, again))
    chosen = values[rows]
    order = np.argsort(chosen, kind="stable")
    ranked = chosen[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = ranked[1:] == ranked[:-1]
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    first_of = np.empty(len(order), np.int64)
    first_of[order] = rows[order[firsts]]
    later = first_of != rows
    return rows[later], first_of[later]


def _are_among(values: NDArray[Any], few: NDArray[Any]) -> NDArray[np.bool_]:
    """bool[rows]: whether a value is one of the ordered `few`; in parts, to save memory."""
    found = np.zeros(len(values), np.bool_)
    if not len(few):
        return found
    for start in range(0, len(values), _STEP):
        part = values[start : start + _STEP]
        places = np.minimum(np.searchsorted(few, part), len(few) - 1)
        found[start : start + _STEP] = few[places] == part
    return found
