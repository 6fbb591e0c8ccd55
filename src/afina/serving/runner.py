"""Runs a step's plan through the network. The only part of the engine that computes.

The network is transformers' own; linear layers are replaced by faster ones that compute the
same (afina.serving.layers), attention is the step's context, low-rank terms come from the
adapter bank. It knows sequences and blocks, nothing of requests, text or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from afina.errors import InvalidRequest
from afina.model.base import LoadedBase
from afina.serving.adapters import AdapterBank
from afina.serving.cache import KvCache, StepContext
from afina.serving.layers import serve_layers
from afina.serving.layout import DecodeRows, Layout, lay_out, rounded_rows
from afina.serving.mirror import Mirror
from afina.serving.seats import Seats
from afina.serving.sequences import Plan, Sequence

SMALLEST_ROWS = 4
"""Products of fewer rows sum in another order (in bf16 below two, in fp32 below four): a row's
bits would depend on its company. Four rows cost no more than one."""


@dataclass(frozen=True)
class StepOutput:
    """Logits `[len(sequences) or more, V]` of those who sample in this step, in order."""

    sequences: list[Sequence]
    logits: torch.Tensor


class Runner:
    """One base model, its cache and its adapters."""

    def __init__(self, base: LoadedBase, cache: KvCache, bank: AdapterBank) -> None:
        self.base = base
        self.bank = bank
        self._cache = cache
        self._rows = DecodeRows()
        self._mirror = Mirror(cache.tokens // 4)
        self.dtype = next(base.model.parameters()).dtype
        self._adapters = Seats(bank, self.dtype)
        self._layers = serve_layers(base.model, self._adapters)

    def check_adapter(self, pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Raises InvalidRequest unless every layer of an adapter is one of this base's."""
        for name, (a, b) in pairs.items():
            product = self._layers.products.get(name)
            sizes = None
            if product is not None:
                sizes = product.in_features, product.sizes[self._layers.places[name]]
            if sizes != (a.shape[1], b.shape[0]):
                raise InvalidRequest(
                    f"The tune does not fit its base: layer {name} is not there in that shape.",
                    param="model",
                )

    @torch.inference_mode()
    def discard(self, sha256: str) -> None:
        """Wipes an adapter's weights from the batch's set."""
        self._adapters.discard(sha256)

    @torch.inference_mode()
    def run(self, plan: Plan) -> StepOutput:
        """Carries out copies, decodes and chunks, and gives the logits to sample from."""
        if plan.copies:
            self._cache.copy(plan.copies)
        layout = lay_out(plan, self._cache.block_tokens, self._rows, SMALLEST_ROWS)
        if not layout.groups:
            return _with_forks([], None, plan.forks)
        sequences, rows = _sampling_rows(layout)
        context = StepContext(self._cache, layout, self._mirror, self.dtype)
        self._adapters.choose(layout)
        kept = rows + [0] * (max(rounded_rows(len(rows)), SMALLEST_ROWS) - len(rows))
        logits = self.base.model(
            input_ids=context.ids,
            position_ids=context.positions,
            use_cache=False,
            logits_to_keep=torch.tensor(kept),
            afina_ctx=context,
        ).logits[0]
        self._layers.forget_step()
        return _with_forks(sequences, logits[: len(rows)], plan.forks)


def _sampling_rows(layout: Layout) -> tuple[list[Sequence], list[int]]:
    sequences, rows = [], []
    for group in layout.groups:
        for index, row in group.real():
            sequence = row.sequence
            if row.stop == len(sequence.prompt.ids) + len(sequence.tokens):
                sequences.append(sequence)
                rows.append(group.offset + index * group.width + row.length - 1)
    return sequences, rows


def _with_forks(
    sequences: list[Sequence], logits: torch.Tensor | None, forks: list[Sequence]
) -> StepOutput:
    """Siblings sample from the logits that were kept when their prompt was computed."""
    kept = [fork.prompt.first for fork in forks]
    parts = [logits] if logits is not None else []
    parts += [first.unsqueeze(0) for first in kept if isinstance(first, torch.Tensor)]
    joined = torch.cat(parts) if parts else torch.empty(0, 0)
    return StepOutput(sequences + forks, joined)
