"""The loss of direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

For a question x with a preferred answer y and another y', with log-probabilities of whole answers:

    loss = −log σ(β ((log π(y|x) − log ref(y|x)) − (log π(y'|x) − log ref(y'|x))))

Log-probabilities are sums over an answer's tokens, taken in fp32, a block of positions at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

_BLOCK: Final = 128


class _TokenLogs(torch.autograd.Function):
    """log p of each target; the softmax is computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, logits_KV: torch.Tensor, targets_K: torch.Tensor) -> torch.Tensor:
        norms = torch.empty(len(targets_K), dtype=torch.float32)
        for start in range(0, len(targets_K), _BLOCK):
            rows = slice(start, start + _BLOCK)
            norms[rows] = torch.logsumexp(logits_KV[rows].float(), -1)
        chosen = logits_KV.gather(1, targets_K[:, None])[:, 0].float()
        ctx.save_for_backward(logits_KV, targets_K, norms)
        return chosen - norms

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_KV, targets_K, norms = ctx.saved_tensors
        grad_KV = torch.empty_like(logits_KV)
        for start in range(0, len(targets_K), _BLOCK):
            rows = slice(start, start + _BLOCK)
            pull = grads[0][rows, None]
            chances = torch.exp(logits_KV[rows].float() - norms[rows, None]).mul_(-pull)
            grad_KV[rows] = chances.scatter_add_(1, targets_K[rows, None], pull)
        return grad_KV, None


def token_logs(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> torch.Tensor:
    """log p(target) of each position, fp32 `[K]`."""
    out: torch.Tensor = _TokenLogs.apply(  # type: ignore[no-untyped-call]
        logits_KV, targets_K
    )
    return out


@dataclass(frozen=True)
class Preferred:
    """What a few pairs gave: `losses` carries the gradient; rewards are β (log π − log ref)."""

    losses: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor


def preference_losses(
    chosen: torch.Tensor, rejected: torch.Tensor, reference: torch.Tensor, beta: float
) -> Preferred:
    """Of pairs: `chosen` and `rejected` are log π of whole answers `[P]`, `reference` the log ref
    of both `[P, 2]`."""
    good = beta * (chosen - reference[:, 0])
    bad = beta * (rejected - reference[:, 1])
    return Preferred(-functional.logsigmoid(good - bad), good.detach(), bad.detach())
