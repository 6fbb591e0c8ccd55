"""The loss of a bin: negative log-likelihood of the learned tokens, summed, and how many of them
the model would have chosen itself.

Logits arrive in the network's precision; each row's logarithm is taken in fp32, a block of rows at
a time, and the gradient is made in the same pass, so that no fp32 copy of all logits ever exists.
Where nothing else needs the logits the gradient takes their place.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from afina.model.kernels.calls import usable
from afina.model.kernels.losses import row_losses

_BLOCK: Final = 32
"""Rows at a time: their fp32 copies stay in the processor's cache."""
_LOG2_E: Final = 1 / math.log(2)
_LAYOUTS: Final = frozenset({"UnsafeViewBackward0", "ViewBackward0"})
_PRODUCTS: Final = frozenset({"MmBackward0", "AddmmBackward0", "FrozenHeadBackward"})


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_KV: torch.Tensor,
        targets_K: torch.Tensor,
        weights_K: torch.Tensor,
        in_place: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        grad = None
        if ctx.needs_input_grad[0]:
            grad = logits_KV.detach() if in_place else torch.empty_like(logits_KV)
        if usable(logits_KV) and logits_KV.stride(-1) == 1:
            losses, right = row_losses(logits_KV.detach(), targets_K, weights_K, grad)
        else:
            losses, right = _row_losses(logits_KV, targets_K, weights_K, grad)
        ctx.grad = grad
        count = right.to(weights_K.dtype).mul_(weights_K).sum()
        ctx.mark_non_differentiable(count, losses)
        return (losses * weights_K).sum(), count, losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = float(grads[0])
        grad, ctx.grad = ctx.grad, None
        return grad if factor == 1.0 else grad * factor, None, None, None


def _row_losses(
    logits_KV: torch.Tensor,
    targets_K: torch.Tensor,
    weights_K: torch.Tensor,
    grad: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What afina.model.kernels.losses does, by torch."""
    losses = torch.empty(len(targets_K), dtype=torch.float32)
    right = torch.zeros(len(targets_K), dtype=torch.bool)
    wide = torch.empty(2, min(_BLOCK, len(targets_K)), logits_KV.shape[-1])
    for start in range(0, len(targets_K), _BLOCK):
        rows = slice(start, start + _BLOCK)
        weights, targets = weights_K[rows, None], targets_K[rows, None]
        logits, chances = wide[:, : len(targets)]
        logits.copy_(logits_KV[rows])
        top = logits.amax(-1, keepdim=True)
        reached = logits.gather(1, targets)
        # of equals the first is chosen, so it is looked up where the target is one of them
        nearly = torch.nonzero((reached == top)[:, 0])[:, 0]
        right[rows][nearly] = logits.index_select(0, nearly).argmax(-1) == targets[nearly, 0]
        torch.exp2(logits.sub_(top).mul_(_LOG2_E), out=chances)
        total = chances.sum(-1, keepdim=True)
        losses[rows] = (total.log() - (reached - top))[:, 0]
        if grad is not None:
            chances.mul_(weights / total).scatter_add_(1, targets, -weights)
            grad[rows] = chances
    return losses, right


def summed_loss(
    logits_KV: torch.Tensor, targets_K: torch.Tensor, weights_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ weight · −log p(target), Σ weight where the target is the first choice, and −log p(target)
    of each position `[K]`, which carries no gradient.

    Weights are fp32, one over the step's learned tokens; a weight of 0 is padding. The logits that
    a plain product made are overwritten when they carry a gradient.
    """
    loss, right, losses_K = _SummedLoss.apply(  # type: ignore[no-untyped-call]
        logits_KV, targets_K, weights_K, _is_of_a_product(logits_KV)
    )
    return loss, right, losses_K


def _is_of_a_product(tensor: torch.Tensor) -> bool:
    """Whether a tensor is what a product made, looked at in another shape at most. Whoever makes
    logits in another way (a cap by tanh) may need them again for the gradient."""
    made_by = tensor.grad_fn
    while made_by is not None and made_by.name() in _LAYOUTS:
        made_by = made_by.next_functions[0][0]
    return made_by is not None and made_by.name() in _PRODUCTS
