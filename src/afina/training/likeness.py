"""Which rows ask for something alike: what a row's loss is compared with.

A row is known by the words of its prompt, hashed into a few places, rare ones counting more. What
it answers is left out, so that a row whose answer is spoilt still stands among its own kind. Rows
are compared with at most `REFERENCES` of all, spread evenly over the file, so that a large file
costs time in proportion to its rows and little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

REFERENCES: Final = 2048
NEIGHBOURS: Final = 32
_PLACES: Final = 256
_CHUNK: Final = 4096
_SPREAD: Final = np.uint32(2654435761)
"""Knuth's multiplier: neighbouring ids fall far apart."""
_COMMON: Final = 0.05
"""What a word that every row has still counts."""

Prompt = Callable[[int], NDArray[np.int32]]
"""The ids of a row's prompt."""


def nearest(prompt: Prompt, rows: int) -> Iterator[tuple[range, NDArray[np.int64]]]:
    """For chunk after chunk of rows `[chunk, k]`: the rows most like each one, itself left out.
    Nothing comes where there is a single row."""
    known = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, REFERENCES)).astype(np.int64))
    count = min(NEIGHBOURS, len(known) - 1)
    if count < 1:
        return
    words = _bags(prompt, known)
    rarity = np.log((len(known) + 1) / (1 + (words > 0).sum(axis=0))) + _COMMON
    references = _unit(words * rarity)
    for start in range(0, rows, _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, rows))
        alike = _unit(_bags(prompt, chunk) * rarity) @ references.T
        alike[chunk[:, None] == known[None, :]] = -1.0
        found = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        yield range(start, start + len(chunk)), known[found]


def _bags(prompt: Prompt, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """`[rows, places]`: roots of counts of words."""
    bags = np.zeros((len(rows), _PLACES), dtype=np.float32)
    for place, row in enumerate(rows):
        hashed = (prompt(int(row)).astype(np.uint32) * _SPREAD) >> np.uint32(24)
        bags[place] = np.bincount(hashed, minlength=_PLACES)
    roots: NDArray[np.float32] = np.sqrt(bags)
    return roots


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-9), dtype=np.float32)
