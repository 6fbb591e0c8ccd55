"""Memory that is there before the first step asks for it.

A page costs most when it is touched for the first time: on a virtual machine, whose host has to
find it too, up to two seconds a gigabyte, in the first step and by one thread. While the trainer
imports its libraries and loads the base, another thread can touch pages that the allocator then
hands out again. Only where the allocator keeps what is freed, as workers start trainers
(afina.pipeline.launcher); elsewhere it is a little work for nothing.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import Final

import psutil

from afina.domain.foresight import HEAP_TIMES_WEIGHTS

LARGEST_SHARE: Final = 1 / 8
"""Of the memory that is free."""
_PIECE: Final = 64 << 20


class WarmHeap:
    """A stretch of the heap that is being touched; `release` gives it to whoever allocates."""

    def __init__(self, size: int) -> None:
        """Begins to touch `size` bytes, on Linux alone."""
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        self._size = size if sys.platform == "linux" else 0
        # of this thread's arena, where the network's tensors will be; another thread has its own
        self._start: int | None = self._libc.malloc(self._size) if self._size else None
        self._stopping = False
        self._thread = threading.Thread(target=self._touch, name="warm-heap", daemon=True)
        if self._start is not None:
            self._thread.start()

    def release(self) -> None:
        """Frees what was touched; what was not yet is left as it is."""
        self._stopping = True
        if self._start is not None:
            self._thread.join()
            self._libc.free(self._start)
            self._start = None

    def _touch(self) -> None:
        for at in range(0, self._size, _PIECE):
            if self._stopping or self._start is None:
                return
            self._libc.memset(self._start + at, 0, min(_PIECE, self._size - at))


def heap_for(base: Path) -> int:
    """Bytes worth touching for a run on the base model in `base`."""
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    free = psutil.virtual_memory().available
    return int(min(HEAP_TIMES_WEIGHTS * weights, LARGEST_SHARE * free))
