"""A network cut below its top blocks: the frozen part and the tuned part can run apart.

Each block stands in a wrapper that runs it, passes its input on, or, at the cut, takes the input
that was computed before. The loop of the network around the blocks is transformers' own and stays
as it is, so what runs of it (positions, masks, norms) is what always runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from afina.model.own_weights import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Mode = Literal["whole", "lower", "upper"]


class Halves:
    """Cuts `model` below block `cut`, in place."""

    def __init__(self, model: PreTrainedModel, cut: int) -> None:
        self.cut = cut
        self.mode: Mode = "whole"
        self.crossing: torch.Tensor | None = None
        """`[1, T, H]`: what crosses the cut; kept by the lower half, taken by the upper one."""
        _, blocks = find_blocks(model)
        for index, block in enumerate(list(blocks)):
            blocks[index] = _Part(block, index, self)

    @contextmanager
    def lower(self) -> Iterator[None]:
        """Only the frozen part runs; `crossing` is its output."""
        with self._as("lower"):
            yield

    @contextmanager
    def upper(self, crossing: torch.Tensor) -> Iterator[None]:
        """Only the tuned part runs, on `crossing`."""
        self.crossing = crossing
        with self._as("upper"):
            yield
        self.crossing = None

    @contextmanager
    def _as(self, mode: Mode) -> Iterator[None]:
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "whole"


class _Part(nn.Module):
    """A block in its place."""

    def __init__(self, block: nn.Module, index: int, halves: Halves) -> None:
        super().__init__()
        self.block = block
        self._index = index
        self._halves = halves

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # some networks ask a block for its kind of attention
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        halves = self._halves
        below = self._index < halves.cut
        if halves.mode == "lower" and not below:
            if self._index == halves.cut:
                halves.crossing = hidden_states
            return hidden_states
        if halves.mode == "upper":
            if below:
                return hidden_states
            if self._index == halves.cut:
                assert halves.crossing is not None
                hidden_states = halves.crossing
        return self.block(hidden_states, *args, **kwargs)
