"""What answers have in common, and whether they are the names of a few classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

_OPENING_WORDS: Final = 4
_MOST_KINDS: Final = 20_000
"""Openings and answers that are counted; of a file with more none is common enough to name."""
_MAX_CLASSES: Final = 100
_CLASS_CHARACTERS: Final = 60
_FEW: Final = 20
"""Habits are spoken of from so many rows on."""


@dataclass(frozen=True)
class HabitFacts:
    """Counts; `largest` and `smallest` are shares of the rows, where answers are classes."""

    rows: int
    longest_opening: int
    """Words of the opening that the most answers share."""
    same_opening: int
    same_length: int
    length: int
    """The commonest length, in characters."""
    classes: int
    """Different answers, where they are few and short; else 0."""
    largest: float
    smallest: int
    """Rows of the rarest class."""


class AnswerHabits(msgspec.Struct):
    """Counts over answers, in memory that does not grow with their number."""

    rows: int = 0
    openings: dict[str, int] = msgspec.field(default_factory=dict)
    lengths: dict[int, int] = msgspec.field(default_factory=dict)
    answers: dict[str, int] = msgspec.field(default_factory=dict)
    """Counted while they are few and short."""
    long: bool = False

    def add(self, answer: str) -> None:
        """One more answer."""
        self.rows += 1
        length = len(answer)
        self.lengths[length] = self.lengths.get(length, 0) + 1
        opening = " ".join(answer[:80].split(None, _OPENING_WORDS)[:_OPENING_WORDS]).lower()
        _count(self.openings, opening, 1, _MOST_KINDS)
        if not self.long and len(self.answers) <= _MAX_CLASSES:
            _count(self.answers, answer.strip().lower(), 1, _MAX_CLASSES + 1)
            self.long = length > _CLASS_CHARACTERS

    def add_habits(self, later: AnswerHabits) -> None:
        """Those of answers behind the ones that were seen so far."""
        self.rows += later.rows
        for length, count in later.lengths.items():
            self.lengths[length] = self.lengths.get(length, 0) + count
        for opening, count in later.openings.items():
            _count(self.openings, opening, count, _MOST_KINDS)
        for answer, count in later.answers.items():
            _count(self.answers, answer, count, _MAX_CLASSES + 1)
        self.long = self.long or later.long

    def facts(self) -> HabitFacts:
        """What is known so far."""
        if self.rows < _FEW:
            return HabitFacts(self.rows, 0, 0, 0, 0, 0, 0.0, 0)
        few = len(self.answers) <= min(_MAX_CLASSES, self.rows / 5)
        classes = len(self.answers) if few and not self.long else 0
        opening, same_opening = max(self.openings.items(), key=_times)
        length, same_length = max(self.lengths.items(), key=_times)
        counts = self.answers.values()
        return HabitFacts(
            rows=self.rows,
            longest_opening=len(opening.split()),
            same_opening=0 if classes else same_opening,
            same_length=0 if classes else same_length,
            length=length,
            classes=classes,
            largest=max(counts) / self.rows if classes else 0.0,
            smallest=min(counts) if classes else 0,
        )


def _count(counts: dict[str, int], key: str, times: int, most: int) -> None:
    """Counts a key, unless it is new and there are `most` already."""
    known = counts.get(key)
    if known is not None or len(counts) < most:
        counts[key] = (known or 0) + times


def _times(item: tuple[object, int]) -> int:
    return item[1]
