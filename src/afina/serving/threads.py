"""How many threads the next step computes with: all cores where the machine is the engine's alone.

The threads of a product spin while they wait for one another, which is fastest as long as each has
a core. Where others compute too, one that spins burns the time that the one it waits for needs: on
two busy cores a step of 60 ms was seen to take two seconds. So the engine looks at what it got of
the cores: when steps get clearly less processor time than their threads would burn, one thread
computes for a while, and all are tried again, less and less often while the others stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FAIR_SHARE: Final = 0.75
"""Of the cores' time, in steps on all threads; below it the machine is crowded. With one other busy
process on two cores it is two thirds."""
WINDOW_S: Final = 0.1
"""Time in steps after which the share is judged."""
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 32.0
REST: Final = 2.0
"""Of a step's time, behind each step that nobody waits for while a trainer lives: a trainer's
threads wait for one another, so a core that the engine takes costs it more than that core."""


@dataclass(frozen=True)
class Clocks:
    """Seconds: monotonic time, and processor time of the whole process."""

    wall: Callable[[], float]
    processor: Callable[[], float]


class Threads:
    """Chooses threads from step to step. `fixed` is what the settings name, 0 for a choice."""

    def __init__(self, cores: int, fixed: int, clocks: Clocks) -> None:
        self._cores = cores
        self._fixed = fixed
        self._clocks = clocks
        self._trainers_until = 0.0
        self._crowded_until = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._begun = (0.0, 0.0)
        self._spent = [0.0, 0.0]

    def set_trainers(self, count: int, ttl_s: float) -> None:
        """While trainers live, one thread; renewed before `ttl_s` is over."""
        self._trainers_until = self._clocks.wall() + ttl_s if count else 0.0

    @property
    def is_crowded(self) -> bool:
        """Whether others were seen to need the cores."""
        return self._clocks.wall() < self._crowded_until

    @property
    def has_trainers(self) -> bool:
        """Whether a trainer shares the machine."""
        return self._clocks.wall() < self._trainers_until

    def rest_s(self, *, front: bool) -> float:
        """Seconds to leave the cores alone after the step that was just made; `front`: whether
        anybody waits for an answer."""
        if front or not self.has_trainers:
            return 0.0
        return REST * (self._clocks.wall() - self._begun[0])

    def wanted(self) -> int:
        """Threads for the next step."""
        if self._fixed:
            return self._fixed
        if self.has_trainers or self.is_crowded:
            return 1
        return self._cores

    def begin(self) -> None:
        """A step begins."""
        self._begun = self._clocks.wall(), self._clocks.processor()

    def end(self, threads: int) -> None:
        """The step is over; it computed with `threads`."""
        if self._fixed or threads < 2:
            return
        self._spent[0] += self._clocks.wall() - self._begun[0]
        self._spent[1] += self._clocks.processor() - self._begun[1]
        wall, processor = self._spent
        if wall < WINDOW_S:
            return
        self._spent = [0.0, 0.0]
        if processor >= FAIR_SHARE * threads * wall:
            self._pause_s = FIRST_PAUSE_S
            return
        self._crowded_until = self._clocks.wall() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
