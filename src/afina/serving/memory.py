"""Memory taken late and given back: tables of gigabytes, and what loading leaves behind.

Tables come from the system when they are first written, in huge pages where it has them: a step
reads and writes small places all over them, and looking up small pages costs more than the bytes.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
from collections.abc import Iterable

import psutil
import torch
from torch import nn


def untouched(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Zeros of a shape; none of their memory is used yet."""
    size = max(1, math.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)[: math.prod(shape)].view(*shape)


def free_bytes() -> int:
    """Memory that could be taken now without swapping."""
    return int(psutil.virtual_memory().available)


def leave_file(model: nn.Module, shared: Iterable[nn.Parameter] = ()) -> None:
    """Copies what is small out of the file of weights, so that the file is let go of once the
    linear layers have been packed: a single norm would hold all of it in memory. What is `shared`
    with another network stays where it is."""
    keep = {id(parameter) for parameter in shared}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            continue
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in keep:
                parameter.data = parameter.data.clone()


def give_back() -> None:
    """Returns to the system what nobody refers to any more. Loading a base leaves as much behind as
    the base takes; a network that was let go of may be a ring of objects that the collector, which
    looks seldom here, would find much later. Takes a tenth of a second: for the loader's thread."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)
