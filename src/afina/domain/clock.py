"""Time as a value that tests can hold still. Everything that asks for the time asks here."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall time (Unix seconds) and of monotonic seconds."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock for tests: it moves only when told to."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


def day_of(moment: int) -> int:
    """The beginning of a moment's day in UTC, in Unix seconds."""
    return moment - moment % 86_400


SYSTEM_CLOCK: Clock = SystemClock()
