"""Memory for weights that every step reads from one end to the other, in large pages.

A processor fetches ahead within a page and looks each page up: with pages of 2 MiB in place of
4 KiB the same memory is read a fifth faster (docs/engine.md). Linux gives them to whom asks
(Documentation/admin-guide/mm/transhuge.rst); where it does not, memory is as it is elsewhere.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Sequence
from typing import Final

import torch

_CHUNK: Final = 64 << 20
"""Bytes that are asked for at once; a larger tensor has a chunk of its own."""
_LINE: Final = 64


class Arena:
    """Hands out tensors side by side. A chunk is given back when the last tensor in it goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunk = mmap.mmap(-1, mmap.PAGESIZE)
        self._used = mmap.PAGESIZE

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor whose numbers are anything."""
        count = math.prod(shape)
        size = count * dtype.itemsize
        if not size:
            return torch.empty(*shape, dtype=dtype)
        with self._lock:
            if self._used + size > len(self._chunk):
                self._chunk = _chunk(max(_CHUNK, size))
                self._used = 0
            start = self._used
            self._used += -(-size // _LINE) * _LINE
            chunk = self._chunk
        return torch.frombuffer(chunk, dtype=dtype, count=count, offset=start).view(*shape)


def _chunk(size: int) -> mmap.mmap:
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        made.madvise(mmap.MADV_HUGEPAGE)
    return made


WEIGHTS: Final = Arena()
"""Of this process's packed weights."""
