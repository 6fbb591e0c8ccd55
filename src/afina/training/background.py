"""A checkpoint written beside the training: copied in a moment, then written by another thread.

Steps go on meanwhile. Nothing of it shows before it is whole, as ever; and what the run says after
it waits behind the event that tells of it (EventLog.hold), so the order of events stays the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

SHARE_OF_MEMORY: Final = 0.25
"""Of what is free, at most, for the copy of a run's state."""


def has_room(state_bytes: int) -> bool:
    """Whether memory holds a second copy of so much without harm to the steps."""
    return bool(state_bytes <= SHARE_OF_MEMORY * psutil.virtual_memory().available)


class Writing:
    """Work in a thread of its own, that ends in a checkpoint's folder."""

    def __init__(self, work: Callable[[], Path], *, beside: bool) -> None:
        """`beside`: in another thread; otherwise it is done when this returns."""
        self._work = work
        self._folder: Path | None = None
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        if not beside:
            self._carry_out()
            return
        self._thread = threading.Thread(target=self._carry_out, name="checkpoint", daemon=True)
        self._thread.start()

    def _carry_out(self) -> None:
        try:
            self._folder = self._work()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self._failure = error

    @property
    def done(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def wait(self) -> Path:
        """The folder, once it is there. Raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        assert self._folder is not None
        return self._folder
