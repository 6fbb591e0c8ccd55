"""Weights in 8 or 4 bits for the positions that decode: a step of few rows waits for weights to be
read, and reads a half or a third of them.

8 bits: one scale a row, symmetric. 4 bits: the groups of `afina.model.four_bits`; the kernels take
their two numbers in fp16, for torch's product they are rounded to bf16. Inputs stay bf16. All these
products give a row the same bits whatever rows stand beside it, one row alone included. The
vocabulary's head is never below 8 bits: it loses most (docs/decisions/0230).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, Literal

import torch

from afina.model.four_bits import GROUP, quantised
from afina.model.kernels.few_bits import SmallBlocks, eight_bit_blocks, four_bit_blocks

Bits = Literal[8, 4]
_LARGEST: Final = 127
_ROWS_4: Final = 16
"""Torch packs 4-bit weights by so many rows."""


@dataclass(frozen=True)
class SmallWeight:
    """A weight `[out, in]` in few bits."""

    bits: Bits
    shape: tuple[int, int]
    found: tuple[torch.Tensor, ...]
    """8 bits: codes `[out, in]` and a scale `[out]`. 4 bits: what `quantised` gives."""
    bias: torch.Tensor | None

    @functools.cached_property
    def packed(self) -> torch.Tensor:
        """Codes as torch's product wants them."""
        if self.bits == 8:
            return self.found[0]
        pairs = self.found[0]
        codes = torch.cat([pairs & 15, pairs >> 4], 1).view(self.shape).int()
        packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        return packed

    @functools.cached_property
    def scales(self) -> torch.Tensor:
        """8 bits: `[out]`. 4 bits: `[in / GROUP, out, 2]`, a step and a group's middle, in bf16."""
        if self.bits == 8:
            return self.found[1]
        _, scale, low = self.found
        # torch's codes count from the middle, 8; that number is small, so rounding it costs little
        step = scale.float()
        middle = low.float() + 8 * step
        scales = torch.stack([step, middle], -1).view(self.shape[0], -1, 2).bfloat16()
        return scales.transpose(0, 1).contiguous()

    @functools.cached_property
    def blocks(self) -> SmallBlocks:
        """All as the kernels want it. 4 bits: with the two numbers of a group in fp16."""
        if self.bits == 8:
            return eight_bit_blocks(*self.found)
        codes, scale, low = self.found
        return four_bit_blocks(codes, scale, low, self.shape[0])

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
        return SmallWeight(8, (out_features, in_features), _in_eight(weight), bias)
    if out_features % _ROWS_4:
        return None
    return SmallWeight(4, (out_features, in_features), quantised(weight), bias)


def _in_eight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = (weight.abs().amax(1).float() / _LARGEST).clamp_min_(1e-12).bfloat16()
    for begin in range(0, len(weight), 4096):
        part = slice(begin, begin + 4096)
        found = weight[part].float().div_(scales[part].float()[:, None]).round_()
        codes[part] = found.clamp_(-_LARGEST, _LARGEST).to(torch.int8)
    return codes, scales
