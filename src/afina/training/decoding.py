"""Greedy continuation with a plain key-value cache, for the parity record alone.

Prompts go through the network packed, as in training, while their keys and values are kept; then
all rows advance one token at a time. The engine has its own decoder: this one is the trainer's
word against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from afina.domain.runs import ParityPrompt, ParityRow
from afina.training.network import TrainedNetwork
from afina.training.packed import Masks, PackedContext, group_spans
from afina.training.packing import Bin, pack_rows

TOP = 20


@dataclass
class _Cache:
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
class _Prefill(PackedContext):
    """A bin of prompts whose keys and values are kept."""

    cache: _Cache = field(default_factory=lambda: _Cache(0, 0))
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
class _Advance:
    """One token of every row."""

    cache: _Cache
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


def greedy_rows(
    network: TrainedNetwork,
    prompts: Sequence[ParityPrompt],
    new_tokens: int,
    end_tokens: Sequence[int],
    capacities: Sequence[int],
) -> tuple[ParityRow, ...]:
    """The greedy continuation of each prompt with the best log-probabilities at each position.
    A row ends with an end token, which is part of it, or after `new_tokens`."""
    if not prompts:
        return ()
    lengths = [len(prompt.ids) for prompt in prompts]
    cache = _Cache(len(prompts), max(lengths) + new_tokens)
    with torch.inference_mode():
        logits = _prefill(network, prompts, lengths, capacities, cache)
        found: list[_Row] = [_Row() for _ in prompts]
        for number in range(new_tokens):
            best = torch.log_softmax(logits.float(), -1).topk(min(TOP, logits.shape[-1]))
            for row, logs, ids in zip(found, best.values, best.indices, strict=True):
                row.take(logs.tolist(), ids.tolist(), end_tokens)
            if all(row.ended for row in found) or number == new_tokens - 1:
                break
            positions = torch.tensor(lengths) + number
            logits = _advance(network, best.indices[:, 0], positions, cache)
    return tuple(row.record(prompt) for row, prompt in zip(found, prompts, strict=True))


class _Row:
    """What one prompt has brought so far."""

    def __init__(self) -> None:
        self.ended = False
        self.logs: list[tuple[float, ...]] = []
        self.ids: list[tuple[int, ...]] = []

    def take(self, logs: list[float], ids: list[int], end_tokens: Sequence[int]) -> None:
        if self.ended:
            return
        self.logs.append(tuple(logs))
        self.ids.append(tuple(ids))
        self.ended = ids[0] in end_tokens

    def record(self, prompt: ParityPrompt) -> ParityRow:
        return ParityRow(
            prompt_ids=prompt.ids,
            ids=tuple(ids[0] for ids in self.ids),
            logprobs=tuple(logs[0] for logs in self.logs),
            top_ids=tuple(self.ids),
            top_logprobs=tuple(self.logs),
        )


def _prefill(
    network: TrainedNetwork,
    prompts: Sequence[ParityPrompt],
    lengths: Sequence[int],
    capacities: Sequence[int],
    cache: _Cache,
) -> torch.Tensor:
    """Logits `[rows, V]` after each prompt."""
    parts: dict[int, torch.Tensor] = {}
    for packed in pack_rows(range(len(prompts)), lengths, capacities):
        logits = _prefill_bin(network, prompts, packed, cache)
        parts.update(zip(packed.rows, logits, strict=True))
    return torch.stack([parts[row] for row in range(len(prompts))])


def _prefill_bin(
    network: TrainedNetwork, prompts: Sequence[ParityPrompt], packed: Bin, cache: _Cache
) -> torch.Tensor:
    ids = torch.zeros(1, packed.capacity, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    spans: list[tuple[int, int, int]] = []
    start = 0
    for row in packed.rows:
        count = len(prompts[row].ids)
        ids[0, start : start + count] = torch.tensor(prompts[row].ids)
        positions[0, start : start + count] = torch.arange(count)
        spans.append((row, start, count))
        start += count
    groups = group_spans([(begin, count) for _, begin, count in spans], packed.capacity)
    context = _Prefill(packed.capacity, groups, Masks(), cache, spans)
    out = network.model(
        input_ids=ids,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=torch.tensor([begin + count - 1 for _, begin, count in spans]),
        afina_ctx=context,
    )
    logits: torch.Tensor = out.logits[0]
    return logits


def _advance(
    network: TrainedNetwork, ids: torch.Tensor, positions: torch.Tensor, cache: _Cache
) -> torch.Tensor:
    out = network.model(
        input_ids=ids[None],
        position_ids=positions[None],
        use_cache=False,
        afina_ctx=_Advance(cache, positions),
    )
    logits: torch.Tensor = out.logits[0]
    return logits
