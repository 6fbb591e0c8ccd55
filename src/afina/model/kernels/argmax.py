"""The place of each row's largest number, where the kernels find it (`source/argmax.c`)."""

from __future__ import annotations

from ctypes import c_int, c_int64, c_void_p

import torch

from afina.model.kernels.library import library


def argmax(rows_RV: torch.Tensor) -> torch.Tensor | None:
    """The first of the largest in each row of bf16; None where the kernels do not take it."""
    kernels = library() if rows_RV.dtype == torch.bfloat16 and rows_RV.is_cpu else None
    fits = rows_RV.dim() == 2 and rows_RV.shape[1] > 0 and rows_RV.stride(1) == 1
    if kernels is None or not fits:
        return None
    count, width = rows_RV.shape
    found = torch.empty(count, dtype=torch.int64)
    kernels.afina_argmax(
        c_void_p(rows_RV.data_ptr()),
        c_void_p(found.data_ptr()),
        c_int64(count),
        c_int64(width),
        c_int64(rows_RV.stride(0)),
        c_int(torch.get_num_threads()),
    )
    return found
