"""The loss of rows of logits and its gradient in one pass (`source/loss.c`)."""

from __future__ import annotations

from typing import Final

import torch

from afina.model.kernels.calls import call, rows, structure, whole

_Loss: Final = structure("_Loss", "logits grad targets weights losses right", "rows row size", "")


def row_losses(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    grad: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p(target) of each row of `[K, V]`, and whether the target is its first choice; the
    gradient of Σ weight loss goes into `grad`, which may be the logits themselves. Raises
    ValueError for a target that is none of V."""
    count, size = logits.shape
    if count and not 0 <= int(targets.min()) <= int(targets.max()) < size:
        raise ValueError(f"a target is not one of {size}")
    losses, right = torch.empty(count), torch.empty(count, dtype=torch.bool)
    if grad is not None and grad.stride() != logits.stride():
        raise ValueError("the gradient lies otherwise than the logits")
    call("afina_loss", _Loss(
        logits=rows(logits, count, size),
        grad=None if grad is None else rows(grad, count, size),
        targets=whole(targets, count, dtype=torch.int64),
        weights=whole(weights, count, dtype=torch.float32),
        losses=losses.data_ptr(), right=right.data_ptr(),
        rows=count, row=logits.stride(0), size=size,
    ))  # fmt: skip
    return losses, right
