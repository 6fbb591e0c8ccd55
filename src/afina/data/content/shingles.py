"""MinHash: texts that share most of their shingles have most of their smallest hashes in common.

A shingle is eight bytes in a row of a text in small letters with single spaces, so that languages
without spaces are compared alike. 32 hashes a text are banded by 4: two texts of which 80 % of the
shingles are shared meet in one of the 8 bands with a probability of 98.5 % (1 - (1 - 0.8^4)^8), and
what meets is compared exactly. (Broder 1997; Leskovec, Rajaraman, Ullman, section 3.4.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

WIDTH: Final = 8
HASHES: Final = 32
BANDS: Final = 8
THRESHOLD: Final = 0.8
"""Share of common shingles from which two texts count as nearly the same."""
_MAX_BYTES: Final = 2000
"""Of a text that are looked at: enough to tell copies from others."""
_CHUNK_BYTES: Final = 1 << 17
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


def plain(text: str) -> bytes:
    """The text as it is compared."""
    return " ".join(text[: 2 * _MAX_BYTES].lower().split()).encode("utf-8", "replace")[:_MAX_BYTES]


def bands_of(texts: Sequence[bytes]) -> NDArray[np.uint64]:
    """uint64[texts, BANDS]: hashes of each band of each text's signature."""
    parts, chunk, size = [], [], 0
    for text in texts:
        chunk.append(text)
        size += len(text) + WIDTH
        if size >= _CHUNK_BYTES:
            parts.append(_chunk_bands(chunk))
            chunk, size = [], 0
    if chunk:
        parts.append(_chunk_bands(chunk))
    return np.concatenate(parts) if parts else np.zeros((0, BANDS), np.uint64)


def similarity(one: bytes, other: bytes) -> float:
    """The share of common shingles (Jaccard), exactly."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / len(first | second)


def _shingles(text: bytes) -> set[bytes]:
    return {text[at : at + WIDTH] for at in range(max(1, len(text) - WIDTH + 1))}


def _chunk_bands(texts: list[bytes]) -> NDArray[np.uint64]:
    """Texts stand behind each other, each padded so that it has a shingle and shares none."""
    padded = [text if len(text) >= WIDTH else text.ljust(WIDTH, b"\0") for text in texts]
    lengths = np.array([len(text) for text in padded])
    joined = b"".join(padded)
    # Eight bytes are one number: every shingle is read from the buffer as it lies there.
    windows = np.lib.stride_tricks.as_strided(
        np.frombuffer(joined, np.uint8), shape=(len(joined) - WIDTH + 1, WIDTH), strides=(1, 1)
    )
    words = np.ascontiguousarray(windows).view(np.uint64).ravel()
    ends = np.cumsum(lengths)
    starts = ends - lengths
    keep = np.ones(len(words) + WIDTH, dtype=np.bool_)
    for back in range(1, WIDTH):
        keep[ends - back] = False  # a shingle that runs into the next text
    mixed = _mix(words[keep[: len(words)]])
    firsts = np.concatenate([[0], np.cumsum(lengths - WIDTH + 1)[:-1]])
    assert len(starts) == len(firsts), "one first shingle a text"
    signature = np.empty((len(texts), HASHES), np.uint32)
    low = (mixed & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    high = (mixed >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    value = low.copy()
    for place in range(HASHES):
        # low + i * high, the i-th hash of two (Kirsch and Mitzenmacher 2006), then spread.
        spread = (value ^ (value >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        signature[:, place] = np.minimum.reduceat(spread, firsts)
        value += high
    return _bands(signature)


def _bands(signature: NDArray[np.uint32]) -> NDArray[np.uint64]:
    rows = HASHES // BANDS
    grouped = signature.reshape(len(signature), BANDS, rows).astype(np.uint64)
    hashed = np.zeros((len(signature), BANDS), np.uint64)
    for place in range(rows):
        hashed = _mix(hashed ^ grouped[:, :, place])
    return hashed


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the input changes half of the output's."""
    mixed = values + _ODD
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
