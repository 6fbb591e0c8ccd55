"""A plain key-value cache: prompts go in packed, then all rows advance one token at a time.

The simplest decoder that can be right, for the trainer's parity record and the admission probe.
The engine has its own, with blocks and schedules; the two are compared.

Attention is in fp32 where the processor does not multiply bf16: torch's products of many small
matrices are so slow there that they took half of the record's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from afina.model.laid_out import can_lay_out
from afina.model.packed import PackedContext


def _multiplied(x: torch.Tensor) -> torch.Tensor:
    """`x` as attention is computed here."""
    slow = x.dtype == torch.bfloat16 and x.is_cpu and not can_lay_out()
    return x.float() if slow else x


@dataclass
class SlotCache:
    """Keys and values by layer: `[rows, heads, capacity, size]`."""

    rows: int
    capacity: int
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def of(
        self, layer: int, k_1GTD: torch.Tensor, v_1GTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a layer, made for such as these where it has none yet."""
        if layer not in self.layers:
            self.layers[layer] = (self._empty(k_1GTD), self._empty(v_1GTD))
        return self.layers[layer]

    def _empty(self, like_1GTD: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = like_1GTD.shape
        return like_1GTD.new_zeros(self.rows, heads, self.capacity, size)


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
        q, k, v = map(_multiplied, (q_1HTD, k_1GTD, v_1GTD))
        keys, values = self.cache.of(layer, k, v)
        for row, start, tokens in self.spans:
            keys[row, :, :tokens] = k[0, :, start : start + tokens]
            values[row, :, :tokens] = v[0, :, start : start + tokens]
        out = super().attend(
            layer, q, k, v, scaling=scaling, sliding_window=sliding_window, softcap=softcap
        )
        return out.to(q_1HTD.dtype)


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
        q, k, v = map(_multiplied, (q_1HTD, k_1GTD, v_1GTD))
        keys, values = self.cache.of(layer, k, v)
        row = torch.arange(self.cache.rows)
        keys[row, :, self.positions] = k[0].transpose(0, 1)
        values[row, :, self.positions] = v[0].transpose(0, 1)
        groups = keys.shape[1]
        queries = q[0].transpose(0, 1).reshape(self.cache.rows, groups, -1, q.shape[3])
        scores = torch.matmul(queries, keys.transpose(2, 3)) * scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        distance = self.positions[:, None] - torch.arange(self.cache.capacity)
        seen = distance >= 0
        if sliding_window is not None:
            seen &= distance < sliding_window
        scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
        out = torch.matmul(torch.softmax(scores, -1), values)
        return out.reshape(1, self.cache.rows, -1, values.shape[3]).to(q_1HTD.dtype)
