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
WINDOW_CHARACTERS: Final = 20_000
"""Of a longer text so much is judged at once: a question to the engine must end, and who asks may
want to stop or to go on where it broke off."""
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


def windows_of(text: str) -> list[str]:
    """A text in parts of at most WINDOW_CHARACTERS, cut where pieces end; nothing is left out."""
    made: list[str] = []
    start = 0
    while len(text) - start > WINDOW_CHARACTERS:
        latest = start + WINDOW_CHARACTERS
        # Pieces are short, so that a sentence's end is near; a text without any is cut at a space.
        room = latest - 2 * PIECE_CHARACTERS
        ends = [match.end() for match in _END.finditer(text, room, latest)]
        space = text.rfind(" ", room, latest) + 1
        cut = ends[-1] if ends else space or latest
        made.append(text[start:cut])
        start = cut
    made.append(text[start:])
    return made


def distinct(split: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The pieces of texts, each once, and where each text's own stand among them."""
    places: dict[str, int] = {}
    where = [[places.setdefault(piece, len(places)) for piece in pieces] for pieces in split]
    return list(places), where


def joined(where: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """Each text's scores from those of its pieces: the highest of each."""
    found: list[list[float]] = []
    for places in where:
        own = [scores[place] for place in places]
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
