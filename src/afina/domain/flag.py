"""A flag that signal handlers raise and a main thread waits for.

`threading.Event` is none: `set` takes a lock, and a second signal that comes while the first one's
handler holds it waits for ever. A number and a byte in a pipe need no lock.
"""

from __future__ import annotations

import contextlib
import os
import select
import weakref
from typing import Final

_MORE_THAN_ENOUGH: Final = 4096


class SignalFlag:
    """Down until it is raised; it counts how often."""

    def __init__(self) -> None:
        self.count = 0
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        weakref.finalize(self, _close, self._reading, self._writing)

    def lift(self) -> None:
        """Raises it; in a signal handler, in a thread, again and again."""
        self.count += 1
        with contextlib.suppress(BlockingIOError):  # so many bytes wait that one more says nothing
            os.write(self._writing, b"!")

    def is_up(self) -> bool:
        """Whether it was ever raised."""
        return self.count > 0

    def wait(self, seconds: float) -> bool:
        """Returns as soon as it was raised since the last `clear`, or after `seconds`; whether it
        is up."""
        self._poll.poll(max(0.0, seconds) * 1000)
        return self.is_up()

    def clear(self) -> None:
        """Waits for the next time from now on; the count stays."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, _MORE_THAN_ENOUGH)


def _close(*ends: int) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)
