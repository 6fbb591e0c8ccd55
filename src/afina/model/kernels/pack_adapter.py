"""An adapter's matrices laid out as the kernels read them (`source/pack_adapter.c`)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64

import torch

from afina.model.kernels.calls import rows, structure, usable, whole
from afina.model.kernels.library import library

_RANKS = 16
_Matrices = structure("_Matrices", "a b to_a to_b", "rank ins outs apart", "factor")


class Packing:
    """Gathers an adapter's layers, then lays them out in one call, on the thread that calls."""

    def __init__(self, rank: int, factor: float) -> None:
        self._rank, self._factor = rank, factor
        self._listed: list[ctypes.Structure] = []
        self._held: list[torch.Tensor] = []

    @staticmethod
    def takes(page: torch.Tensor) -> bool:
        """Whether kernels lay out such pages."""
        return usable(page)

    def add(self, a: torch.Tensor, b: torch.Tensor, to_a: torch.Tensor, to_b: torch.Tensor) -> None:
        """A layer: A `[rank, in]` and B `[out, rank]` in bf16, and where they go, by page:
        `[pages, in / 2, 16, 2]` and `[pages, out / 16, 8, 16, 2]`, as far apart as one another.
        Raises ValueError for any others."""
        a, b = a.contiguous(), b.contiguous()
        (ins,), (outs,) = a.shape[1:], b.shape[:1]
        pages, sixteens = -(-self._rank // _RANKS), -(-outs // 16)
        together = pages == 1 or to_a.stride(0) == to_b.stride(0)
        if ins % 2 or not together or len(to_a) != pages:
            raise ValueError("an adapter's layer and its pages do not fit together")
        self._held += [a, b]
        self._listed.append(_Matrices(
            a=whole(a, self._rank, ins), b=whole(b, outs, self._rank),
            to_a=rows(to_a.view(pages, -1), pages, ins * _RANKS),
            to_b=rows(to_b.view(pages, -1), pages, sixteens * 16 * _RANKS),
            rank=self._rank, ins=ins, outs=outs, apart=to_a.stride(0), factor=self._factor,
        ))  # fmt: skip

    def run(self) -> None:
        """Writes all that was added."""
        kernels = library()
        assert kernels is not None
        listed: Sequence[ctypes.Structure] = self._listed
        if listed:
            kernels.afina_pack_adapter(
                (type(listed[0]) * len(listed))(*listed), c_int64(len(listed))
            )
