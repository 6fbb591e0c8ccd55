"""How a text is read for moderation: sentence by sentence, and whole where it is short; the worst
piece counts.

The network makes one vector of a piece: calm sentences around a threat would drown it (measured:
one threat among six calm sentences scored 0.005 in one piece).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from afina.data.moderation.categories import CATEGORIES, with_parents

PIECE_CHARACTERS: Final = 280
LEAST_CHARACTERS: Final = 24
"""A shorter sentence is read with the next one."""
_END: Final = re.compile(r"(?<=[.!?…。])\s+|\n+")
_HARD: Final = re.compile(r"\s+")


def pieces_of(text: str) -> list[str]:
    """The pieces of a text, none longer than PIECE_CHARACTERS; one empty piece of an empty text."""
    made: list[str] = []
    current = ""
    for part in _parts(text):
        if len(current) >= LEAST_CHARACTERS or (
            current and len(current) + 1 + len(part) > PIECE_CHARACTERS
        ):
            made.append(current)
            current = part
        else:
            current = f"{current} {part}" if current else part
    if current:
        made.append(current)
    if len(made) > 1 and len(text) <= PIECE_CHARACTERS:
        made.append(text.strip())
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
