"""Drafts from a tune's own training answers: what usually follows the last few tokens there.

A tuned model answers like its training answers. So their tokens, sorted by what stands before them,
are a draft that costs a look-up; the network checks several tokens of it in one step. The index is
arrays alone: for each length of context the hashes of all places, in order. It is made from the
shards of the training file where they lie, and holds training text: it is never written anywhere,
and goes with the tune. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from afina.data.shard_files import ShardFile
from afina.domain.manifests import SHARDS, Manifest

LONGEST: Final = 7
"""Tokens a draft: with the token before it they fill eight rows."""
_CONTEXTS: Final = (16, 8, 4, 2)
"""Lengths of context that are looked up, longest first."""
_BEFORE: Final = 24
"""Tokens of the prompt that are kept in front of an answer, so that its beginning is found too."""
_MOST_TOKENS: Final = 1_000_000
_MOST_PLACES: Final = 128
_LEAST_SHARE: Final = 0.4
"""Of all places that a draft rests on, the part that must agree with it to its last token."""
_END: Final = -1
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
_FOLDER: Final = re.compile(r"[0-9a-f]{64}/[A-Za-z0-9_-][A-Za-z0-9._-]*")

Row = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Ids of a row and which of them were learned."""


class DraftIndex:
    """The answers of one tune's training rows."""

    def __init__(self, rows: Iterable[Row]) -> None:
        pieces = [np.full(LONGEST, _END, np.int32)]
        self.tokens = 0
        for piece in _pieces(rows):
            if self.tokens + len(piece) > _MOST_TOKENS:
                break
            self.tokens += len(piece)
            pieces += [piece, np.full(LONGEST, _END, np.int32)]
        self._text = np.concatenate(pieces)
        self._tables = {length: _table(self._text, length) for length in _CONTEXTS}

    def draft(self, context: Sequence[int], longest: int) -> list[int]:
        """What most places agree on after the end of `context`, `longest` tokens at most; nothing
        where no place is like it or they do not agree."""
        recent = np.array(context[-_CONTEXTS[0] :], np.int64).astype(np.uint64)
        for length in _CONTEXTS:
            if len(recent) < length:
                continue
            hashes, places = self._tables[length]
            key = _hashed(recent[-length:], length)[0]
            first, last = (int(np.searchsorted(hashes, key, side)) for side in ("left", "right"))
            if last > first:
                found = places[first:last]
                return self._agreed(found[:: -(-len(found) // _MOST_PLACES)], longest)
        return []

    def _agreed(self, places: NDArray[np.int32], longest: int) -> list[int]:
        agreed: list[int] = []
        needed = _LEAST_SHARE * len(places)
        for step in range(longest):
            following = self._text[places + step]
            tokens, counts = np.unique(following, return_counts=True)
            best = int(counts.argmax())
            if tokens[best] == _END or counts[best] < needed:
                break
            agreed.append(int(tokens[best]))
            places = places[following == tokens[best]]
        return agreed


def read_index(shards: Path, manifest: Manifest) -> DraftIndex | None:
    """The index of a tune, from what was prepared of its training file; None where that is gone
    with the file, lies on another machine, or is not known."""
    folder = manifest.settings.get(SHARDS, "")
    if _FOLDER.fullmatch(folder) is None or not (shards / folder).is_dir():
        return None
    files = sorted((shards / folder).glob("shard-*.safetensors"))
    index = DraftIndex(_rows(files))
    return index if index.tokens else None


def _rows(files: Iterable[Path]) -> Iterator[Row]:
    for path in files:
        shard = ShardFile.open(path)
        yield from (shard.row(number) for number in range(shard.rows))


def _pieces(rows: Iterable[Row]) -> Iterator[NDArray[np.int32]]:
    """What was learned in one piece, with a little of what stands before it."""
    for ids, learned in rows:
        edges = np.flatnonzero(np.diff(learned.astype(np.int8), prepend=0, append=0))
        for start, stop in edges.reshape(-1, 2).tolist():
            yield ids[max(0, start - _BEFORE) : stop]


def _table(text: NDArray[np.int32], length: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Hashes of all contexts of that length, in order, and the place behind each."""
    hashes = _hashed(text.astype(np.uint64), length)[:-1]
    inside = np.convolve(text == _END, np.ones(length, np.int32), "valid")[:-1] == 0
    places = np.flatnonzero(inside).astype(np.int32)
    order = np.argsort(hashes[places], kind="stable")
    return hashes[places][order], places[order] + np.int32(length)


def _hashed(text: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of each run of `length` tokens. Two runs of one hash give a bad draft at worst."""
    count = len(text) - length + 1
    found = np.zeros(count, np.uint64)
    for place in range(length):
        found = (found ^ (text[place : place + count] + np.uint64(1))) * _PRIME
        found ^= found >> np.uint64(29)
    return found
