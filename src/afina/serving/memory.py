"""Large tables whose memory is taken when it is first written.

They come from the system in huge pages where it has them: a step reads and writes small places all
over tables of gigabytes, and looking up small pages costs more than the bytes.
"""

from __future__ import annotations

import math
import mmap

import torch


def untouched(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Zeros of a shape; none of their memory is used yet."""
    size = max(1, math.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)[: math.prod(shape)].view(*shape)
