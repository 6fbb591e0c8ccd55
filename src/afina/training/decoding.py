"""Greedy continuation with a plain key-value cache, for the parity record alone.

Prompts go through the network packed, as in training, while their keys and values are kept; then
all rows advance one token at a time. The engine has its own decoder: this one is the trainer's
word against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afina.domain.runs import ParityPrompt, ParityRow
from afina.model.packed import Masks, group_spans
from afina.model.slots import AdvanceContext, PrefillContext, SlotCache
from afina.training.network import Network
from afina.training.packing import Bin, pack_rows

TOP = 20


def greedy_rows(
    network: Network,
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
    cache = SlotCache(len(prompts), max(lengths) + new_tokens)
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
    network: Network,
    prompts: Sequence[ParityPrompt],
    lengths: Sequence[int],
    capacities: Sequence[int],
    cache: SlotCache,
) -> torch.Tensor:
    """Logits `[rows, V]` after each prompt."""
    parts: dict[int, torch.Tensor] = {}
    for packed in pack_rows(range(len(prompts)), lengths, capacities):
        logits = _prefill_bin(network, prompts, packed, cache)
        parts.update(zip(packed.rows, logits, strict=True))
    return torch.stack([parts[row] for row in range(len(prompts))])


def _prefill_bin(
    network: Network, prompts: Sequence[ParityPrompt], packed: Bin, cache: SlotCache
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
    context = PrefillContext(packed.capacity, groups, Masks(), cache, spans)
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
    network: Network, ids: torch.Tensor, positions: torch.Tensor, cache: SlotCache
) -> torch.Tensor:
    out = network.model(
        input_ids=ids[None],
        position_ids=positions[None],
        use_cache=False,
        afina_ctx=AdvanceContext(cache, positions),
    )
    logits: torch.Tensor = out.logits[0]
    return logits
