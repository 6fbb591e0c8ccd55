"""The supervisor's ear: whether the engine still gives signs of life.

The engine writes a byte a second into a pipe (`afina.serving.heartbeat`). Silence alone is no
proof: on a crowded machine, or while it starts, its loop may be late. A process that is silent and
uses no processor time either is hung (stopped, or waiting for something that will not come); so is
one that computes and stays silent for ten times as long.
"""

from __future__ import annotations

import os
from typing import Final

import psutil

from afina.domain.clock import Clock
from afina.domain.silence import Silence

LOOK_S: Final = 1.0
PATIENCE: Final = 10


class Heartbeats:
    """One engine's, over all its lives."""

    def __init__(self, limit_s: float, clock: Clock) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._beats = 0
        self._looked: float | None = None
        self._asleep, self._silent = Silence(2 * LOOK_S), Silence(2 * LOOK_S)

    def look(self, pid: int) -> str | None:
        """Why the living process `pid` counts as hung, or None."""
        now = self._clock.monotonic()
        if not self._limit_s or (self._looked is not None and now - self._looked < LOOK_S):
            return None
        self._looked = now
        self._hear()
        silent_s = self._silent.look(now, (pid, self._beats))
        asleep_s = self._asleep.look(now, (pid, self._beats, _processor_s(pid)))
        if asleep_s >= self._limit_s:
            return f"no sign of life and no processor time for {asleep_s:.0f} s"
        if silent_s >= PATIENCE * self._limit_s:
            return f"no sign of life for {silent_s:.0f} s"
        return None

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._reading)
        os.close(self.writing)

    def _hear(self) -> None:
        try:
            while heard := os.read(self._reading, 4096):
                self._beats += len(heard)
        except BlockingIOError:
            pass


def _processor_s(pid: int) -> float | None:
    """In tenths, so that what a process spends to stand still does not count."""
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return round(float(used.user + used.system), 1)
