"""AdamW over flat tensors, gradient clipping, and the learning rate by step.

The arithmetic is torch.optim.AdamW's, in fp32, over all matrices at once: that of its fused kernel,
or of our own with the same bits, which clips on its way. The rate rises linearly over the warm-up
and falls along half a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from afina.domain.runs import OptimizerSpec
from afina.model.kernels.adamw import LARGEST, Rates, can_move, move


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """The rate of optimiser step `step`, counted from 1."""
    if step <= spec.warmup_steps:
        return spec.learning_rate * step / (spec.warmup_steps + 1)
    span = max(1, spec.total_steps - spec.warmup_steps)
    progress = min(1.0, (step - 1 - spec.warmup_steps) / span)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return spec.learning_rate * (spec.final_fraction + (1 - spec.final_fraction) * cosine)


@dataclass(frozen=True)
class Move:
    """What one step does to any piece of the weights."""

    spec: OptimizerSpec
    step: int
    clip: float
    """What gradients are multiplied with."""

    @classmethod
    def of(cls, spec: OptimizerSpec, step: int, norm: float) -> Move:
        """The move of step `step`, whose gradient has this norm."""
        return cls(spec, step, min(1.0, spec.max_gradient_norm / (norm + 1e-6)))

    def apply(
        self,
        masters: torch.Tensor,
        grads: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor],
    ) -> bool:
        """Moves `masters` in place, in one pass over all four; `grads` may be clipped in place.
        Whether all masters are numbers that networks compute with."""
        spec = self.spec
        rate = learning_rate(spec, self.step)
        numbers = (spec.betas, spec.epsilon, spec.weight_decay)
        rates = Rates(self.step, rate, *numbers, self.clip)
        if can_move(masters, rates) and grads.is_contiguous():
            return move(masters, grads, moments, rates)
        if self.clip < 1:
            grads.mul_(self.clip)
        adamw(
            [masters],
            [grads],
            [moments[0]],
            [moments[1]],
            [],
            [torch.tensor(self.step - 1.0)],  # counted up by it
            fused=True,
            amsgrad=False,
            beta1=spec.betas[0],
            beta2=spec.betas[1],
            lr=rate,
            weight_decay=spec.weight_decay,
            eps=spec.epsilon,
            maximize=False,
        )
        return all_finite(masters)


@dataclass(frozen=True)
class Moved:
    """What an update did."""

    norm: float
    """The gradient's, before clipping. One that is not finite moves nothing."""
    finite: bool = True
    """Whether all weights are numbers that networks compute with."""


def all_finite(weights: torch.Tensor) -> bool:
    """Whether all of them are numbers, in bf16 too."""
    # the sum of squares takes a twentieth of the time, and overflows long before a weight does
    if math.isfinite(float(torch.linalg.vector_norm(weights))):
        return True
    return float(torch.linalg.vector_norm(weights, math.inf)) <= LARGEST


class AdamW:
    """The optimiser's two moments and its step."""

    def __init__(self, spec: OptimizerSpec, masters: torch.Tensor) -> None:
        self.spec = spec
        self.masters = masters
        self.first = torch.zeros_like(masters)
        self.second = torch.zeros_like(masters)

    @property
    def state_bytes(self) -> int:
        """Of masters and moments."""
        return sum(one.nbytes for one in (self.masters, self.first, self.second))

    def update(self, grads: torch.Tensor, step: int) -> Moved:
        """Moves the masters."""
        norm = float(torch.linalg.vector_norm(grads))
        if not math.isfinite(norm):
            return Moved(norm)
        made = Move.of(self.spec, step, norm)
        return Moved(norm, made.apply(self.masters, grads, (self.first, self.second)))
