"""Products of bf16 rows with packed weights (`source/products.c`)."""

from __future__ import annotations

from ctypes import c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Final

import torch

from afina.model.kernels.arena import WEIGHTS
from afina.model.kernels.library import library

OUTS: Final = 32
"""Outputs of a block; a weight has a whole number of them."""


@dataclass(frozen=True)
class PackedWeight:
    """A weight `[out, in]` as the kernel reads it: `[out / 32, in / 2, 32, 2]`."""

    blocks: torch.Tensor

    @property
    def out_features(self) -> int:
        return len(self.blocks) * OUTS

    @property
    def in_features(self) -> int:
        return self.blocks.shape[1] * 2

    def multiply(
        self,
        x: torch.Tensor,
        add: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x Wᵀ + add for `x` `[..., in]`, rounded to bf16 once, written to `out` if there is one;
        `add` is `[..., out]`, and may be `out`. A row has the same bits in any company, with any
        number of threads."""
        kernels = library()
        assert kernels is not None
        rows = _checked(x.reshape(-1, self.in_features).contiguous(), self.in_features)
        shape = (*x.shape[:-1], self.out_features)
        if out is None:
            out = x.new_empty(shape)
        for other in (out, add):
            if other is not None and (other.shape != shape or not other.is_contiguous()):
                raise ValueError(f"wanted contiguous {shape}, not {tuple(other.shape)}")
            if other is not None:
                _checked(other, self.out_features)
        kernels.afina_multiply(
            c_void_p(rows.data_ptr()),
            c_void_p(self.blocks.data_ptr()),
            None if add is None else c_void_p(add.data_ptr()),
            c_void_p(out.data_ptr()),
            c_int64(len(rows)),
            c_int64(self.in_features),
            c_int64(self.out_features),
            c_int(torch.get_num_threads()),
        )
        return out


def packed_weight(weight: torch.Tensor) -> PackedWeight | None:
    """A bf16 weight `[out, in]` for the kernel; None where there is none for it."""
    out_features, in_features = weight.shape
    fits = weight.dtype == torch.bfloat16 and weight.is_cpu
    if not fits or out_features % OUTS or in_features % 2 or library() is None:
        return None
    pairs = weight.detach().reshape(out_features // OUTS, OUTS, in_features // 2, 2)
    blocks = pairs.transpose(1, 2)
    return PackedWeight(WEIGHTS.empty(blocks.shape, weight.dtype).copy_(blocks))


def _checked(tensor: torch.Tensor, width: int) -> torch.Tensor:
    if tensor.dtype != torch.bfloat16 or not tensor.is_cpu or tensor.shape[-1] != width:
        raise ValueError(f"wanted bf16 rows of {width} on the processor")
    return tensor
