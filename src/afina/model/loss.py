"""The loss of a bin: negative log-likelihood of the learned tokens, summed, and how many of them
the model would have chosen itself.

Logits arrive in the network's precision; each row's logarithm is taken in fp32, a block of rows at
a time, and the gradient is made in the same pass, so that no fp32 copy of all logits ever exists.
"""

from __future__ import annotations

from typing import Any, Final

import torch

_BLOCK: Final = 128


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_KV: torch.Tensor, targets_K: torch.Tensor, weights_K: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        losses = torch.empty(len(targets_K), dtype=torch.float32)
        chosen = torch.empty_like(targets_K)
        grad = torch.empty_like(logits_KV) if ctx.needs_input_grad[0] else None
        for start in range(0, len(targets_K), _BLOCK):
            rows = slice(start, start + _BLOCK)
            logs = torch.log_softmax(logits_KV[rows].float(), -1)
            targets = targets_K[rows, None]
            losses[rows] = logs.gather(1, targets)[:, 0].neg_()
            chosen[rows] = logs.argmax(-1)
            if grad is not None:
                logs.exp_().scatter_add_(1, targets, logs.new_full((1, 1), -1.0).expand_as(targets))
                grad[rows] = logs.mul_(weights_K[rows, None])
        ctx.grad = grad
        right = (chosen == targets_K).to(weights_K.dtype).mul_(weights_K).sum()
        ctx.mark_non_differentiable(right, losses)
        return (losses * weights_K).sum(), right, losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = float(grads[0])
        grad = ctx.grad if factor == 1.0 else ctx.grad * factor
        return grad, None, None


def summed_loss(
    logits_KV: torch.Tensor, targets_K: torch.Tensor, weights_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ weight · −log p(target), Σ weight where the target is the first choice, and −log p(target)
    of each position `[K]`, which carries no gradient.

    Weights are fp32, one over the step's learned tokens; a weight of 0 is padding.
    """
    loss, right, losses_K = _SummedLoss.apply(  # type: ignore[no-untyped-call]
        logits_KV, targets_K, weights_K
    )
    return loss, right, losses_K
