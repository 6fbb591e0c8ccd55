"""Memory that the system gives now and not when it is first written (`source/touch.c`)."""

from __future__ import annotations

from ctypes import c_int64, c_void_p

import torch

from afina.model.kernels.library import library


def touch(tensor: torch.Tensor) -> None:
    """Takes the memory of a tensor in one piece; its numbers stay, whoever writes them meanwhile.
    Without kernels nothing is done."""
    kernels = library()
    if kernels is None or not tensor.is_cpu or not tensor.is_contiguous():
        return
    kernels.afina_touch(c_void_p(tensor.data_ptr()), c_int64(tensor.nbytes))
