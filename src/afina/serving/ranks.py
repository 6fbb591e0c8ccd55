"""Who goes first: requests that somebody waits for, then those that have time. Plain Python.

Gates and batches ask in the background. Their sequences take part in one step of `EVERY` while
others are at work, and in all of them otherwise; of those that begin, one of `EVERY` is theirs
while both kinds wait. So they slow nobody down by much, and never stand still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from afina.serving.sequences import Sequence
from afina.serving.turns import Turns

EVERY: Final = 8
"""One step of so many is the background's too. Thirty-two rows cost five times what one costs: an
answer beside thirty-one of the background loses a third of its speed, not four fifths."""


class Ranks:
    """Sequences that wait for something: those in front, and those of the background."""

    def __init__(self) -> None:
        self.front = Turns()
        self.background = Turns()
        self._since = 0

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._of(sequence)

    def add(self, sequence: Sequence, *, front: bool = False) -> None:
        """Lets `sequence` wait; in front of all others of its model if asked."""
        self._of(sequence).add(sequence, front=front)

    def remove(self, sequence: Sequence) -> None:
        """`sequence` no longer waits."""
        self._of(sequence).remove(sequence)

    def served(self, sequence: Sequence) -> None:
        """`sequence` begins: it no longer waits, and its kind had its turn."""
        self._since = 0 if sequence.prompt.background else self._since + 1
        self.remove(sequence)

    def heads(self) -> Iterator[Sequence]:
        """Whose turn it is, and who may go instead: the background only where nobody else waits,
        or in its turn."""
        first, second = self.front.next(), self.background.next()
        if second is not None and (first is None or self._since >= EVERY - 1):
            yield second
        if first is not None:
            yield first

    def _of(self, sequence: Sequence) -> Turns:
        return self.background if sequence.prompt.background else self.front


class Pace:
    """Which steps are the background's too."""

    def __init__(self) -> None:
        self._steps = 0

    def next(self, others: bool) -> bool:
        """Whether the background takes part in the next step; `others`: somebody else is at work,
        too."""
        self._steps = self._steps + 1 if others else 0
        if self._steps % EVERY == 0:
            self._steps = 0
            return True
        return False
