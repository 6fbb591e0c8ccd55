"""What a page of an adapter looks like: as torch's lookups want it, and as the kernels do."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import torch

from afina.errors import InvalidRequest

RANKS = 16
"""Ranks a page; an adapter of more takes several."""
_WIDEST = 256
"""Columns of B that are summed at once: fewer, and the sums stay in registers."""

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By layer A `[rank, in]` and B `[out, rank]`."""


@dataclass(frozen=True)
class Shape:
    """A product's shape: what it reads, and the columns that each of its layers writes."""

    in_features: int
    sizes: tuple[int, ...]

    @functools.cached_property
    def block(self) -> int:
        """Columns a block; every layer has a whole number of blocks."""
        common = gcd(*self.sizes)
        return max(n for n in range(1, min(common, _WIDEST) + 1) if common % n == 0)

    @functools.cached_property
    def layer_of_block(self) -> list[int]:
        """For each block of the product's columns the layer it belongs to."""
        return [i for i, size in enumerate(self.sizes) for _ in range(size // self.block)]

    @property
    def table(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A page of A and one of B, as lookups want them."""
        columns = len(self.sizes) * RANKS
        b = len(self.layer_of_block), RANKS, self.block
        return (self.in_features, columns), b

    @property
    def packed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A page of A and one of B, as the kernels want them: numbers that are multiplied together
        in pairs (`model/kernels/source/step.h`)."""
        a = len(self.sizes), self.in_features // 2, RANKS, 2
        return a, (-(-sum(self.sizes) // 32) * 2, RANKS // 2, 16, 2)

    def places(self, names: Sequence[str]) -> Iterator[tuple[str, int, slice]]:
        """Packed: each layer's part of A and the sixteens of B that are its own."""
        start = 0
        for place, (name, size) in enumerate(zip(names, self.sizes, strict=True)):
            yield name, place, slice(start // 16, start // 16 + -(-size // 16))
            start += size


def scaled(pairs: Pairs, scaling: float, dtype: torch.dtype) -> Pairs:
    """The matrices in the pages' type, B times the adapter's scaling."""
    if scaling == 1.0 and all(side.dtype == dtype for pair in pairs.values() for side in pair):
        return pairs
    return {name: (a.to(dtype), (b.float() * scaling).to(dtype)) for name, (a, b) in pairs.items()}


def table_pages(
    pairs: Pairs, rank: int, names: list[str], shape: Shape, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """An adapter's part of one product as lookups want it: its pages of A and of B."""
    pages, block = -(-rank // RANKS), shape.block
    a = torch.zeros(pages, shape.in_features, len(names), RANKS, dtype=dtype)
    b = torch.zeros(pages, len(shape.layer_of_block), RANKS, block, dtype=dtype)
    start = 0
    for place, (name, size) in enumerate(zip(names, shape.sizes, strict=True)):
        count = size // block
        if name in pairs:
            own_a, own_b = pairs[name]
            for page in range(pages):
                ranks = slice(page * RANKS, min(rank, (page + 1) * RANKS))
                used = ranks.stop - ranks.start
                a[page, :, place, :used] = own_a[ranks].t()
                part = own_b[:, ranks].reshape(count, block, used)
                b[page, start : start + count, :used] = part.transpose(1, 2)
        start += count
    return a.flatten(2), b


def kernel_pages(
    pairs: Pairs, rank: int, names: list[str], shape: Shape, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """An adapter's part of one product as the kernels want it: its pages of A and of B."""
    pages = -(-rank // RANKS)
    a, b = (torch.zeros(pages, *part, dtype=dtype) for part in shape.packed)
    for name, place, sixteens in shape.places(names):
        if name not in pairs:
            continue
        own_a, own_b = pairs[name]
        size = len(own_b)
        for page in range(pages):
            ranks = slice(page * RANKS, min(rank, (page + 1) * RANKS))
            used = ranks.stop - ranks.start
            a[page, place, :, :used] = own_a[ranks].view(used, -1, 2).transpose(0, 1)
            part = own_b.new_zeros(-(-size // 16) * 16, RANKS)
            part[:size, :used] = own_b[:, ranks]
            b[page, sixteens] = part.view(-1, 16, RANKS // 2, 2).transpose(1, 2)
    return a, b


def check_fit(pairs: Pairs, layers: Mapping[str, tuple[int, int]]) -> None:
    """Raises InvalidRequest unless every layer of an adapter is one of `layers`, by name its in
    and out features."""
    for name, (a, b) in pairs.items():
        if layers.get(name) != (a.shape[1], b.shape[0]):
            raise InvalidRequest(
                f"The tune does not fit its base: layer {name} is not there in that shape.",
                param="model",
            )
