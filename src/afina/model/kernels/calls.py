"""What every call of a kernel does: the checks that a kernel leaves to us, and its arguments."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

import torch

from afina.model.kernels.library import library


class Arguments(ctypes.Structure):
    """A kernel's arguments, as its C structure has them."""


def structure(name: str, pointers: str, numbers: str, floats: str, after: str = "") -> Any:
    """A C structure with these fields, in this order."""
    fields = [(one, c_void_p) for one in pointers.split()]
    fields += [(one, c_int64) for one in numbers.split()]  # type: ignore[misc]
    fields += [(one, c_float) for one in floats.split()]  # type: ignore[misc]
    fields += [(one, c_int64) for one in after.split()]  # type: ignore[misc]
    return type(name, (Arguments,), {"_fields_": fields})


def usable(tensor: torch.Tensor) -> bool:
    """Whether kernels compute with such a tensor: bf16, on a processor that has them."""
    return tensor.dtype == torch.bfloat16 and tensor.is_cpu and library() is not None


def call(name: str, arguments: Arguments) -> None:
    """Runs a kernel on torch's threads. Raises MemoryError where it found no room."""
    _run(name, ctypes.byref(arguments), c_int(torch.get_num_threads()))


def call_all(name: str, listed: Any) -> None:
    """Runs a kernel on an array of arguments, in one go."""
    _run(name, listed, c_int64(len(listed)), c_int(torch.get_num_threads()))


def _run(name: str, *given: Any) -> None:
    kernels = library()
    assert kernels is not None
    if getattr(kernels, name)(*given):
        raise MemoryError(f"{name} found no memory for its panels")


def again(listed: Any) -> Any:
    """A copy of an array of arguments."""
    return type(listed).from_buffer_copy(listed)


def rows(tensor: torch.Tensor, count: int, width: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Where rows of numbers that lie side by side begin. Raises ValueError for any others."""
    fits = tensor.shape == (count, width) and tensor.dtype == dtype and tensor.is_cpu
    if not fits or (width > 1 and tensor.stride(1) != 1):
        raise ValueError(
            f"wanted {count} rows of {width} {dtype} on the processor, "
            f"not {tuple(tensor.shape)} {tensor.dtype}, {tensor.stride()} apart"
        )
    return tensor.data_ptr()


def whole(tensor: torch.Tensor, *shape: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Where a tensor without gaps begins. Raises ValueError for any other."""
    if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_cpu:
        raise ValueError(f"wanted {shape} {dtype}, not {tuple(tensor.shape)} {tensor.dtype}")
    if not tensor.is_contiguous():
        raise ValueError(f"wanted {shape} without gaps")
    return tensor.data_ptr()
