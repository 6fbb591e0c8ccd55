"""How a long text is read for moderation: in pieces of a few sentences, the worst of them counts.

A mean over a page would drown one sentence; a piece is short enough that it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from afina.data.moderation.categories import CATEGORIES, with_parents

PIECE_CHARACTERS: Final = 280
_MOST_PIECES: Final = 4096
_END: Final = re.compile(r"(?<=[.!?…。])\s+|\n+")
_HARD: Final = re.compile(r"\s+")


def pieces_of(text: str) -> list[str]:
    """The pieces of a text, none longer than PIECE_CHARACTERS; one empty piece of an empty text."""
    if len(text) <= PIECE_CHARACTERS:
        return [text.strip()]
    made: list[str] = []
    current = ""
    for part in _parts(text):
        if current and len(current) + 1 + len(part) > PIECE_CHARACTERS:
            made.append(current)
            current = part
        else:
            current = f"{current} {part}" if current else part
    if current:
        made.append(current)
    return made or [""]


def joined(split: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """Each text's scores from those of its pieces, in the same order: the highest of each."""
    found: list[list[float]] = []
    place = 0
    for pieces in split:
        own = scores[place : place + len(pieces)]
        place += len(pieces)
        found.append(with_parents([max(row[i] for row in own) for i in range(len(CATEGORIES))]))
    return found


def _parts(text: str) -> list[str]:
    made: list[str] = []
    for sentence in _END.split(text):
        plain = sentence.strip()
        while len(plain) > PIECE_CHARACTERS:
            cut = plain.rfind(" ", 1, PIECE_CHARACTERS)
            cut = PIECE_CHARACTERS if cut < PIECE_CHARACTERS // 2 else cut
            made.append(plain[:cut])
            plain = plain[cut:].strip()
        if plain:
            made.append(plain)
    return made
