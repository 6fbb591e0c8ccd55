"""What answers have in common, and whether they are the names of a few classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

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


class AnswerHabits:
    """Counts over the answers of a file, in memory that does not grow with it."""

    def __init__(self) -> None:
        self.rows = 0
        self._openings: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()
        self._answers: Counter[str] = Counter()
        self._long = False

    def add(self, answer: str) -> None:
        """One more answer."""
        self.rows += 1
        self._lengths[len(answer)] += 1
        opening = " ".join(answer[:80].split(None, _OPENING_WORDS)[:_OPENING_WORDS]).lower()
        if len(self._openings) < _MOST_KINDS or opening in self._openings:
            self._openings[opening] += 1
        if not self._long and len(self._answers) <= _MAX_CLASSES:
            self._answers[answer.strip().lower()] += 1
            self._long = len(answer) > _CLASS_CHARACTERS

    def facts(self) -> HabitFacts:
        """What is known so far."""
        if self.rows < _FEW:
            return HabitFacts(self.rows, 0, 0, 0, 0, 0, 0.0, 0)
        few = len(self._answers) <= min(_MAX_CLASSES, self.rows / 5)
        classes = len(self._answers) if few and not self._long else 0
        opening, same_opening = self._openings.most_common(1)[0]
        length, same_length = self._lengths.most_common(1)[0]
        counts = self._answers.values()
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
