"""Weights in 8 or 4 bits for the positions that decode: a step of few rows waits for weights to be
read, and reads a half or a third of them.

8 bits: one scale a row, symmetric. 4 bits: the groups of `afina.model.four_bits`, whose two numbers
are rounded to bf16, as torch's product wants them. Inputs stay bf16. Both products give a row the
same bits whatever rows stand beside it, one row alone included. The vocabulary's head is never
below 8 bits: it loses most (docs/decisions/0230).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch

from afina.model.four_bits import GROUP, quantised

Bits = Literal[8, 4]
_LARGEST: Final = 127
_ROWS_4: Final = 16
"""Torch packs 4-bit weights by so many rows."""


@dataclass(frozen=True)
class SmallWeight:
    """A weight `[out, in]` in few bits."""

    bits: Bits
    packed: torch.Tensor
    scales: torch.Tensor
    """8 bits: `[out]`. 4 bits: `[in / GROUP, out, 2]`, a step and a group's middle."""
    bias: torch.Tensor | None

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """x Wᵀ + bias for input `[..., in]` in bf16."""
        rows = x.reshape(-1, x.shape[-1])
        if self.bits == 4:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales)
        else:
            out = torch.ops.aten._weight_int8pack_mm(rows, self.packed, self.scales)
        if self.bias is not None:
            out.add_(self.bias)
        found: torch.Tensor = out if x.dim() == out.dim() else out.view(*x.shape[:-1], -1)
        return found


def small_weight(weight: torch.Tensor, bias: torch.Tensor | None, bits: Bits) -> SmallWeight | None:
    """A bf16 weight `[out, in]` in few bits; None where torch's products take no such shape."""
    out_features, in_features = weight.shape
    if weight.dtype != torch.bfloat16 or in_features % GROUP:
        return None
    if bits == 8:
        return SmallWeight(8, *_in_eight(weight), bias)
    return None if out_features % _ROWS_4 else SmallWeight(4, *_in_four(weight), bias)


def _in_eight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = (weight.abs().amax(1).float() / _LARGEST).clamp_min_(1e-12).bfloat16()
    for begin in range(0, len(weight), 4096):
        part = slice(begin, begin + 4096)
        found = weight[part].float().div_(scales[part].float()[:, None]).round_()
        codes[part] = found.clamp_(-_LARGEST, _LARGEST).to(torch.int8)
    return codes, scales


def _in_four(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out_features, in_features = weight.shape
    pairs, scale, low = quantised(weight)
    codes = torch.cat([pairs & 15, pairs >> 4], 1).view(out_features, in_features).int()
    # torch's codes count from the middle, 8; that number is small, so rounding it costs little
    step = scale.float()
    middle = low.float() + 8 * step
    scales = torch.stack([step, middle], -1).view(out_features, -1, 2).bfloat16()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return packed, scales.transpose(0, 1).contiguous()
