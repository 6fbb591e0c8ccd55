"""Weights in 4 and 8 bits as the kernels read them (`source/step_few_bits.c`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from afina.model.kernels.arena import WEIGHTS
from afina.model.kernels.products import OUTS

GROUP: Final = 32
"""Inputs that share two numbers, in 4 bits."""
_AT_ONCE: Final = 4096
"""Rows that are packed at once: what it takes beside them stays small."""


@dataclass(frozen=True)
class SmallBlocks:
    """Codes, two bytes a word `[out / 32, …, 16, 2]`, and what they are scaled by."""

    codes: torch.Tensor
    scales: torch.Tensor


def four_bit_blocks(
    codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, out_features: int
) -> SmallBlocks:
    """From groups as `afina.model.four_bits.quantised` gives them, of a weight of `out_features`
    rows (a multiple of 32)."""
    rows = codes.view(out_features, -1, GROUP // 2)

    def words(part: torch.Tensor) -> torch.Tensor:
        flat = torch.cat([part & 15, part >> 4], 2).int()
        nibbles = flat.view(len(part) // OUTS, 2, 16, -1, 2, 2)  # block, half, out, k, pair, place
        found = sum(
            nibbles[:, half, :, :, pair] << 4 * (half + 2 * pair)
            for half in (0, 1)
            for pair in (0, 1)
        )
        assert isinstance(found, torch.Tensor)
        return found.transpose(1, 2).to(torch.int16)

    both = torch.stack([scale.view(out_features, -1), low.view(out_features, -1)], 2)
    scales = both.view(out_features // OUTS, OUTS, -1, 2).permute(0, 2, 3, 1)
    return SmallBlocks(_by_rows(rows, words), scales.contiguous())


def eight_bit_blocks(codes: torch.Tensor, scales: torch.Tensor) -> SmallBlocks:
    """From codes `[out, in]` of -127 to 127 and a scale a row; missing rows are zero."""
    missing = -len(codes) % OUTS
    codes = functional.pad(codes, (0, 0, 0, missing))

    def words(part: torch.Tensor) -> torch.Tensor:
        numbers = (part.int() + 128).view(len(part) // OUTS, 2, 16, -1, 2)
        found = numbers[:, 0] | (numbers[:, 1] << 8)
        return found.transpose(1, 2).to(torch.int16)

    return SmallBlocks(_by_rows(codes, words), functional.pad(scales.float(), (0, missing)))


def _by_rows(rows: torch.Tensor, words: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    made = torch.cat([words(part) for part in torch.split(rows, _AT_ONCE)])
    return WEIGHTS.empty(made.shape, made.dtype).copy_(made)
