"""AdamW over flat tensors, gradient clipping, and the learning rate by step.

The arithmetic is torch.optim.AdamW's, in fp32, as a handful of operations over all matrices at
once. The rate rises linearly over the warm-up and falls along half a cosine.
"""

from __future__ import annotations

import math

import torch

from afina.domain.runs import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """The rate of optimiser step `step`, counted from 1."""
    if step <= spec.warmup_steps:
        return spec.learning_rate * step / (spec.warmup_steps + 1)
    span = max(1, spec.total_steps - spec.warmup_steps)
    progress = min(1.0, (step - 1 - spec.warmup_steps) / span)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return spec.learning_rate * (spec.final_fraction + (1 - spec.final_fraction) * cosine)


class AdamW:
    """The optimiser's two moments and its step."""

    def __init__(self, spec: OptimizerSpec, masters: torch.Tensor) -> None:
        self.spec = spec
        self.masters = masters
        self.first = torch.zeros_like(masters)
        self.second = torch.zeros_like(masters)
        self._scratch = torch.empty_like(masters)

    def update(self, grads: torch.Tensor, step: int) -> float:
        """Moves the masters; returns the gradient's norm before clipping.

        A norm that is not finite moves nothing.
        """
        norm = float(torch.linalg.vector_norm(grads))
        if not math.isfinite(norm):
            return norm
        spec = self.spec
        grads.mul_(min(1.0, spec.max_gradient_norm / (norm + 1e-6)))
        rate = learning_rate(spec, step)
        beta1, beta2 = spec.betas
        self.first.lerp_(grads, 1 - beta1)
        self.second.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
        torch.sqrt(self.second, out=self._scratch)
        self._scratch.div_(math.sqrt(1 - beta2**step)).add_(spec.epsilon)
        if spec.weight_decay:
            self.masters.mul_(1 - rate * spec.weight_decay)
        self.masters.addcdiv_(self.first, self._scratch, value=-rate / (1 - beta1**step))
        return norm
