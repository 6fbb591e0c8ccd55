"""Logits as the engine computes them, and what makes scores of them that mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from benchmarks.moderation_data import Sentence
from torch import nn

from afina.data.moderation.words import signals
from afina.model.encoder import PREFIX, Encoder, Layer

HARMLESS = 0.7
"""Share of texts that belong to no category, for which scores are calibrated."""


@torch.no_grad()
def raw_logits(
    encoder: Encoder, top: Sequence[Layer], out: nn.Linear, rows: list[Sentence]
) -> torch.Tensor:
    """Logits [rows, 13] before calibration, as the engine computes them."""
    pooled = encoder.pool_ids(encoder.tokenizer.ids([PREFIX + s.text for s in rows]), top).pooled
    words = torch.tensor([signals(s.text) for s in rows])
    found: torch.Tensor = out(torch.cat([pooled, words], 1))
    return found.clone()


def calibrate(logits: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """One slope for all and a shift for each category (Platt 1999), both held near 1 and 0.

    Rows are weighed as if HARMLESS of all texts belonged to no category: among those that were
    written to be trained on they are half, and where texts are judged they are most.
    """
    fine = (y.sum(1) == 0).float()
    share = fine * HARMLESS / fine.mean() + (1 - fine) * (1 - HARMLESS) / (1 - fine.mean())
    w = w * share[:, None]
    slope = torch.zeros(1, requires_grad=True)
    shift = torch.zeros(13, requires_grad=True)
    tuned = torch.optim.LBFGS([slope, shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        tuned.zero_grad()
        each = F.binary_cross_entropy_with_logits(logits * slope.exp() + shift, y, reduction="none")
        total = (each * w).sum() / len(y) + 0.02 * (shift**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    tuned.step(loss)  # type: ignore[no-untyped-call]
    return torch.stack([slope.detach().exp().expand(13), shift.detach()])
