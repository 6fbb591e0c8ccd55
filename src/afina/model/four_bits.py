"""A frozen base in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314): linear layers keep
codes, and make the weight anew, in the network's precision, whenever a product needs it.

Codes are affine in groups of 32 along a row, as in GGUF's Q4_1: w = scale · q + low with q of 0 to
15 and both numbers in fp16, 5 bits a weight together. A weight that was born so (the starter's file
is Q4_1) has its numbers found again: they are fitted by least squares, and where a group is not
matched to the bit their neighbours in fp16 are tried. Embedding, norms and head stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

GROUP: Final = 32
_LARGEST: Final = 15
_ROWS: Final = 4096
"""Groups that are made at once: what a product needs beside its weight stays small."""
_NEIGHBOURS: Final = sorted(
    ((a, b) for a in range(-4, 5) for b in range(-4, 5) if (a, b) != (0, 0)),
    key=lambda pair: (abs(pair[0]) + abs(pair[1]), abs(pair[0] - pair[1])),
)
"""Steps of fp16 that scale and low are moved by, the nearest first."""
_BORN: Final = 0.25
"""The share of groups that a fit must match to the bit before neighbours are tried: weights that
were never in 4 bits match by chance alone."""


class FourBitLinear(nn.Linear):
    """A frozen linear layer whose weight is kept in 4 bits."""

    def __init__(self, source: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = source.in_features, source.out_features
        self.bias = source.bias
        # empty: it tells those who ask a module's parameters what precision it computes in
        self.like = nn.Parameter(source.weight.new_empty(0), requires_grad=False)
        codes, scale, low = quantised(source.weight.data)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("low", low, persistent=False)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """`[out, in]` in the network's precision, made anew at each call."""
        flat = dense(self.codes, self.scale, self.low, self.like.dtype)  # type: ignore[arg-type]
        return flat.view(self.out_features, self.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return out


class _Product(torch.autograd.Function):
    """x Wᵀ + bias; the weight is made twice and kept by nobody."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FourBitLinear) -> torch.Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.matmul(grads[0], ctx.layer.weight), None


def hold_in_four_bits(model: nn.Module, keep: Iterable[nn.Module]) -> int:
    """Puts 4-bit layers in the place of linear ones whose rows are whole groups, but for those of
    `keep`; returns how many weights that are."""
    kept = {id(module) for module in keep}
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and id(module) not in kept and module.in_features % GROUP == 0
    }
    count = 0
    for name in list(found):
        linear = found.pop(name)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, FourBitLinear(linear))
        count += linear.weight.numel()
    return count


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes `[groups, 16]` (two a byte), scale and low `[groups]` in fp16 of a weight `[out, in]`
    whose rows are whole groups."""
    groups = weight.reshape(-1, GROUP)
    parts = [_quantised(part) for part in torch.split(groups, _ROWS * GROUP)]
    codes, scale, low = (torch.cat(each) for each in zip(*parts, strict=True))
    return codes, scale, low


def _quantised(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = part.float()
    lowest, highest = wide.amin(1), wide.amax(1)
    step = (highest - lowest) / _LARGEST
    codes = (wide - lowest[:, None]).div_(step.clamp_min(1e-12)[:, None]).round_()
    codes.clamp_(0, _LARGEST)
    # a weight's own rounding grows with it; near zero it counts as that of half a step
    trust = 1 / wide.square().add_((step[:, None] / 2).square().add_(1e-24))
    scale, low = _fitted(wide, codes, trust, (step, lowest))
    matched = _matches(part, codes, scale, low)
    if float(matched.float().mean()) >= _BORN:
        _try_neighbours(part, codes, scale, low, (~matched).nonzero()[:, 0])
    else:
        scale, low = _fitted(wide, codes, torch.ones_like(wide), (step, lowest))
    small = codes.to(torch.uint8)
    half = GROUP // 2
    return small[:, :half] | (small[:, half:] << 4), scale, low


def _fitted(
    wide: torch.Tensor,
    codes: torch.Tensor,
    trust: torch.Tensor,
    usual: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and low with the least sum of squares, each weighted by `trust`; the `usual` ones where
    a group's codes do not tell them."""
    step, lowest = usual
    total, of_codes = trust.sum(1), (trust * codes).sum(1)
    squares = (trust * codes.square()).sum(1)
    of_values, product = (trust * wide).sum(1), (trust * codes * wide).sum(1)
    spread = total * squares - of_codes.square()
    sound = (step > 0) & (spread > 1e-9 * total.square())
    scale = (total * product - of_codes * of_values) / torch.where(sound, spread, 1.0)
    scale = torch.where(sound, scale, step)
    low = torch.where(sound, (of_values - scale * of_codes) / total, lowest)
    return scale.half(), low.half()


def _matches(
    part: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor
) -> torch.Tensor:
    """Which groups come back to the bit."""
    made = (codes * scale.float()[:, None]).add_(low.float()[:, None]).to(part.dtype)
    return (made == part).all(1)


def _try_neighbours(
    part: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    low: torch.Tensor,
    left: torch.Tensor,
) -> None:
    """Moves scale and low of the groups `left` by a few steps of fp16 where that matches them."""
    for by_scale, by_low in _NEIGHBOURS:
        if not len(left):
            return
        moved = _stepped(scale[left], by_scale), _stepped(low[left], by_low)
        matched = _matches(part[left], codes[left], *moved)
        if matched.any():
            scale[left[matched]], low[left[matched]] = (one[matched] for one in moved)
            left = left[~matched]


def _stepped(values: torch.Tensor, steps: int) -> torch.Tensor:
    """The fp16 numbers so many places further from zero."""
    bits = values.view(torch.int16)
    size = ((bits & 0x7FFF) + steps).clamp_(0, 0x7BFF)
    return (size | (bits & -0x8000)).view(torch.float16)


def dense(
    codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The weights `[groups, 32]` that codes stand for, rounded once from fp32."""
    out = torch.empty(len(codes), GROUP, dtype=dtype)
    half = GROUP // 2
    for begin in range(0, len(codes), _ROWS):
        rows = slice(begin, begin + _ROWS)
        scales, lows = scale[rows].float()[:, None], low[rows].float()[:, None]
        pairs = codes[rows]
        for place, nibbles in ((0, pairs & 15), (half, pairs >> 4)):
            made = torch.addcmul(lows, nibbles.float(), scales)
            out[rows, place : place + half] = made
    return out
