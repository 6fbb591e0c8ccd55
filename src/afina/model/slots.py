"""A plain key-value cache: prompts go in packed, then all rows advance one token at a time.

The simplest decoder that can be right, for the trainer's parity record and the admission probe.
The engine has its own, with blocks and schedules; the two are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from afina.model.packed import PackedContext


@dataclass
class SlotCache:
    """Keys and values by layer: `[rows, heads, capacity, size]`."""

    rows: int
    capacity: int
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def of(
        self, layer: int, k_1GTD: torch.Tensor, v_1GTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in self.layers:
            _, heads, _, size = k_1GTD.shape
            value_size = v_1GTD.shape[3]
            self.layers[layer] = (
                k_1GTD.new_zeros(self.rows, heads, self.capacity, size),
                v_1GTD.new_zeros(self.rows, heads, self.capacity, value_size),
            )
        return self.layers[layer]


@dataclass
class PrefillContext(PackedContext):
    """A bin of prompts whose keys and values are kept."""

    cache: SlotCache = field(default_factory=lambda: SlotCache(0, 0))
    spans: Sequence[tuple[int, int, int]] = ()
    """(row, start, tokens)"""

    def attend(  # noqa: PLR0913
        self,
        layer: int,
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        keys, values = self.cache.of(layer, k_1GTD, v_1GTD)
        for row, start, tokens in self.spans:
            keys[row, :, :tokens] = k_1GTD[0, :, start : start + tokens]
            values[row, :, :tokens] = v_1GTD[0, :, start : start + tokens]
        return super().attend(
            layer,
            q_1HTD,
            k_1GTD,
            v_1GTD,
            scaling=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
        )


@dataclass
class AdvanceContext:
    """One token of every row."""

    cache: SlotCache
    positions: torch.Tensor

    def attend(  # noqa: PLR0913
        self,
        layer: int,
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """See afina.model.attention.AttentionContext."""
        keys, values = self.cache.of(layer, k_1GTD, v_1GTD)
        row = torch.arange(self.cache.rows)
        keys[row, :, self.positions] = k_1GTD[0].transpose(0, 1)
        values[row, :, self.positions] = v_1GTD[0].transpose(0, 1)
        groups = keys.shape[1]
        queries = q_1HTD[0].transpose(0, 1).reshape(self.cache.rows, groups, -1, q_1HTD.shape[3])
        scores = torch.matmul(queries, keys.transpose(2, 3)) * scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        distance = self.positions[:, None] - torch.arange(self.cache.capacity)
        seen = distance >= 0
        if sliding_window is not None:
            seen &= distance < sliding_window
        scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
        out = torch.matmul(torch.softmax(scores, -1), values)
        return out.reshape(1, self.cache.rows, -1, values.shape[3])
