"""Weights in bf16 laid out for the processor by oneDNN, where it multiplies them: the bits of a
product stay the same."""

from __future__ import annotations

import functools
from typing import Literal

import torch


@functools.cache
def can_lay_out() -> bool:
    """Whether oneDNN takes bf16 weights here. Without products of bf16 (AVX-512, AMX or
    AVX-NE-CONVERT) it refuses them."""
    if not torch._C._has_mkldnn:
        return False
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 16, dtype=torch.bfloat16))
    except RuntimeError:
        return False
    return True


def laid_out(weight: torch.Tensor) -> torch.Tensor | None:
    """The weight `[out, in]` for `product`; None where torch takes it as it lies."""
    if weight.dtype != torch.bfloat16 or not weight.is_cpu or not can_lay_out():
        return None
    found: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return found


def product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    after: Literal["none", "gelu"] = "none",
) -> torch.Tensor:
    """x Wᵀ + bias for a weight from `laid_out`, and what is done with it."""
    algorithm = "none" if after == "gelu" else ""  # of gelu: the exact one
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
        x, weight, bias, after, [], algorithm
    )
    return found
