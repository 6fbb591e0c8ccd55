"""How much lies in a folder: measured by walking it, at most every few seconds."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

EVERY_S: Final = 15.0


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts nothing."""
    try:
        if not path.is_dir():
            return path.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                continue
    return total


class DiskMeter:
    """The size of the data directory, as last measured, and what was promised room since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._used = 0

    def used(self, root: Path, now: float) -> int:
        """Bytes below `root`; `now` is monotonic."""
        with self._lock:
            if now - self._at >= EVERY_S:
                self._used, self._at = size_of(root), now
            return self._used

    def promise(self, coming_bytes: int) -> None:
        """Counts what comes before the next measurement."""
        with self._lock:
            self._used += coming_bytes

    def forget(self) -> None:
        """Measures again at the next question."""
        with self._lock:
            self._at = float("-inf")
