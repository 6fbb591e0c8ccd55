"""A fault of our own in the log: its class and where it came from, and none of its words, which
may hold a user's text. What the system says of a file or the disk holds none, and is told."""

from __future__ import annotations

import os
import traceback

FRAMES = 12


def fault_of(error: BaseException) -> dict[str, str]:
    """Fields for a log line about `error`."""
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES)
    where = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
    told = {"exception": type(error).__name__, "frames": where}
    if isinstance(error, OSError) and error.errno is not None:
        told["reason"] = os.strerror(error.errno)
    return told
