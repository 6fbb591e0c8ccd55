"""No process of the platform outlives the one that started it.

A child is told the reading end of a pipe whose writing end only its parent holds: the end of that
pipe is the end of the parent, however it died. On Linux the kernel is asked as well; its signal
fires when the *thread* that forked ends, so parents start children from their main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

ORPHANED: Final = 70
"""The exit code of a process that ended because its parent had."""
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_fd: int | None, then: Callable[[], None] | None = None) -> None:
    """End this process as soon as the parent that holds the other end of `parent_fd` is gone.

    Call it first of all. `then` runs before the end and must be short. Without `parent_fd` the
    process stands alone and nothing is watched.
    """
    if parent_fd is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.set_inheritable(parent_fd, False)
    threading.Thread(
        target=_watch, args=(parent_fd, then), name="parent-watch", daemon=True
    ).start()


def _watch(parent_fd: int, then: Callable[[], None] | None) -> None:
    try:
        while os.read(parent_fd, 1):
            pass
    except OSError:
        pass
    try:
        if then is not None:
            then()
    finally:
        os._exit(ORPHANED)
