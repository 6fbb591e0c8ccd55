"""Lines of the log, written by a thread of their own.

A write to a file waits where the disk does, sometimes for seconds, and the loop that answers
requests must not wait with it. Lines are written in their order, those of a twentieth of a second
together. Where more of them wait than `MOST_WAITING`, new ones are counted and left out, and the
count is written when there is room.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TextIO

MOST_WAITING: Final = 20_000
_END_S: Final = 5.0
_GATHER_S: Final = 0.05


class LogWriter:
    """A text file to write to without waiting. `close` writes what waits."""

    def __init__(self, target: TextIO, dropped: Callable[[int], str]) -> None:
        """`dropped` is the line that tells how many were left out."""
        self._target = target
        self._dropped = dropped
        self._lines: list[str] = []
        self._left_out = 0
        self._some = threading.Condition()
        self._closing = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> int:
        """Takes the text; never waits for the disk."""
        with self._some:
            if len(self._lines) >= MOST_WAITING:
                self._left_out += 1
            else:
                self._lines.append(text)
            self._some.notify()
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread flushes when it has written."""

    def close(self) -> None:
        """Writes what waits, for some seconds at most."""
        with self._some:
            self._closing = True
            self._ending.set()
            self._some.notify()
        self._thread.join(_END_S)
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            with self._some:
                while not self._lines and not self._left_out and not self._closing:
                    self._some.wait()
            # Whoever writes now wakes nobody, which costs a request more than its line does.
            self._ending.wait(_GATHER_S)
            with self._some:
                lines, self._lines = self._lines, []
                if self._left_out:
                    lines.append(self._dropped(self._left_out) + "\n")
                    self._left_out = 0
                if not lines:
                    return
            # A log that nobody reads any more must not end what it tells of.
            with contextlib.suppress(OSError, ValueError):
                self._target.write("".join(lines))
                self._target.flush()
