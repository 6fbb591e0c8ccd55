"""A decoder's step as the kernels read it (`source/step.h`): the twins of its structs.

Whoever fills them answers for every address: `address` looks at a tensor before it is handed over,
and what it points to must live as long as the struct does.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Final

import torch

from afina.model.kernels.library import library

PLACES: Final = 16
"""Positions of a block of the cache."""
RANKS: Final = 16
"""Ranks of a page of an adapter."""
_P = ctypes.c_void_p
_I = ctypes.c_int64


class Linear(ctypes.Structure):
    """`linear`: a linear layer, or several side by side."""

    _fields_ = [
        *((name, _P) for name in ("weight", "codes", "scales", "bias", "factor", "offset")),
        *((name, _P) for name in ("a", "b", "part_of")),
        *((name, _I) for name in ("a_apart", "b_apart", "ins", "outs", "parts", "bits")),
    ]


class Layer(ctypes.Structure):
    """`layer`: its products, norms and cache."""

    _fields_ = [
        *((name, Linear) for name in ("qkv", "out", "gate_up", "down")),
        *((name, _P) for name in ("before", "between", "q_norm", "k_norm", "keys", "values")),
        ("window", _I),
    ]


class Network(ctypes.Structure):
    """`network`: all layers, and what stands before and behind them."""

    _fields_ = [
        ("layers", ctypes.POINTER(Layer)),
        ("count", _I),
        ("embedding", _P),
        ("last", _P),
        ("head", ctypes.POINTER(Linear)),
        *((name, _I) for name in ("width", "wide", "heads", "kv_heads", "size")),
        *((name, ctypes.c_double) for name in ("scaling", "eps", "head_eps")),
    ]


class Step(ctypes.Structure):
    """`step`: the rows of one step and the room to compute in."""

    _fields_ = [
        ("rows", _I),
        ("kept_rows", _I),
        *((name, _P) for name in ("ids", "positions", "slots", "cos", "sin", "pieces", "tables")),
        *((name, _P) for name in ("segments", "kept_segments", "kins", "kept_kins")),
        *((name, _P) for name in ("first_page", "kept_first_page", "pages", "kept_pages", "kept")),
        *((name, _I) for name in ("piece_count", "segment_count", "kept_segment_count")),
        *((name, _I) for name in ("kin_count", "kept_kin_count")),
        *((name, _P) for name in ("h", "x", "qkv", "seen", "gate_up", "wide", "low", "logits")),
        ("scores", _P),
        ("scores_size", _I),
        ("sums", _P),
        ("sums_size", _I),
        ("claims", _P),
        ("threads", _I),
    ]


def address(tensor: torch.Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Where a tensor's numbers are. Raises ValueError unless it is of this type and shape (-1:
    any), on the processor, and in one piece."""
    fits = len(tensor.shape) == len(shape) and all(
        wanted in (-1, size) for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.dtype != dtype or not tensor.is_cpu or not tensor.is_contiguous():
        raise ValueError(f"wanted {dtype} {shape} in one piece, not {tuple(tensor.shape)}")
    return tensor.data_ptr()


def integers(numbers: Sequence[int]) -> tuple[array[int], int]:
    """Numbers in one piece, and where; at least one, so that there is an address."""
    held = array("q", numbers or (0,))
    return held, held.buffer_info()[0]


def phases(layers: int) -> int:
    """How many claims a step of a network of so many layers needs."""
    kernels = library()
    if kernels is None:
        raise RuntimeError("the kernels are not there")
    kernels.afina_step_phases.restype = _I
    found: int = kernels.afina_step_phases(_I(layers))
    return found


def run_step(network: Network, step: Step) -> None:
    """Computes a step; the caller has filled both."""
    kernels = library()
    if kernels is None:
        raise RuntimeError("the kernels are not there")
    kernels.afina_step(ctypes.byref(network), ctypes.byref(step))
