"""Signs of life of the engine: a beat a second to its supervisor, and an eye on its own step loop.

Busy is not hung. A step may take minutes (a long prompt, a large base, a crowd) and a model a long
time to load; both use the processor, and loading leaves the step loop alone. Hung is who stands in
one step without using any processor time, or in one step for longer than any client waits. No torch
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from afina.domain.clock import Clock
from afina.domain.silence import Silence

BEAT_S: Final = 1.0
HUNG: Final = 75
"""The exit code of an engine that found its own step loop hung."""
PATIENCE: Final = 20
"""How many times the limit a step may take that does use the processor: ten minutes by default, as
long as a client waits for a line."""


@dataclass(frozen=True)
class Turn:
    """Where the step loop is: how much it has done so far, and whether it is at something."""

    done: int
    at_work: bool


class StepWatch:
    """Judges the step loop from another thread. `processor_s`: the loop's own processor time."""

    def __init__(
        self,
        turn: Callable[[], Turn],
        processor_s: Callable[[], float],
        limit_s: float,
        clock: Clock,
    ) -> None:
        self._turn, self._processor_s, self._clock = turn, processor_s, clock
        self._limit_s = limit_s
        self._idle, self._step = Silence(2 * BEAT_S), Silence(2 * BEAT_S)
        self.step_s = 0.0
        """How long the present step has taken, as far as was looked."""

    def look(self) -> str | None:
        """What is wrong, or None. Call it about once every BEAT_S."""
        now, turn = self._clock.monotonic(), self._turn()
        # A loop that waits for requests is as good as one that has just done something.
        signs = turn.done if turn.at_work else None
        self.step_s = 0.0 if signs is None else self._step.look(now, signs)
        used = None if signs is None else round(self._processor_s(), 1)
        idle_s = self._idle.look(now, (signs, used))
        if signs is None or not self._limit_s:
            return None
        if idle_s >= self._limit_s:
            return f"a step has used no processor time for {idle_s:.0f} s"
        if self.step_s >= PATIENCE * self._limit_s:
            return f"a step has taken {self.step_s:.0f} s"
        return None


async def beat(fd: int | None, look: Callable[[], object]) -> None:
    """Has `look` look and tells the supervisor, if there is one, again and again."""
    if fd is not None:
        os.set_blocking(fd, False)
    while True:
        look()
        if fd is not None:
            # A full pipe: the supervisor sleeps, and there is enough for it to read.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(fd, b".")
        await asyncio.sleep(BEAT_S)


def processor_clock(thread: threading.Thread) -> Callable[[], float]:
    """The processor time of one thread, read from another; that of the whole process where the
    system cannot tell."""
    if not hasattr(time, "pthread_getcpuclockid") or thread.ident is None:
        return time.process_time
    clock = time.pthread_getcpuclockid(thread.ident)
    return lambda: time.clock_gettime(clock)


def place_of(thread: threading.Thread) -> str:
    """Where in the code a thread stands: places alone, as values may be what a user wrote."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return "?"
    stack = traceback.extract_stack(frame)
    return " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(stack))
