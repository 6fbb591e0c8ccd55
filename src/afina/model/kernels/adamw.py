"""AdamW in one pass over memory (`source/adamw.c`), with the bits of torch's fused kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

from afina.model.kernels.calls import call, structure, whole
from afina.model.kernels.library import library

_LANES: Final = 16
LARGEST: Final = torch.finfo(torch.bfloat16).max
"""Of weights: what is larger is infinite in the precision that networks compute and answer in."""
_AdamW: Final = structure(
    "_AdamW",
    "weights first second grads",
    "count",
    "clip decay add_first keep_second add_second root epsilon size largest",
    "odd",
)


@dataclass(frozen=True)
class Rates:
    """The numbers of step `step`, counted from 1; gradients are multiplied by `clip` where that is
    below 1."""

    step: int
    rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    clip: float


def can_move(weights: torch.Tensor, rates: Rates) -> bool:
    """Whether the kernel moves such weights: fp32, in whole vectors, on a processor that has it."""
    fits = weights.dtype == torch.float32 and weights.is_cpu and weights.is_contiguous()
    # torch turns its formula for the first moment round where the gradient has the larger share
    usual = weights.numel() % _LANES == 0 and rates.betas[0] > 0.5
    return fits and usual and library() is not None


def move(
    weights: torch.Tensor,
    grads: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    rates: Rates,
) -> bool:
    """Moves weights and both moments in place; whether all weights are numbers in bf16 too. All
    four have the same shape. `grads` stay as they are."""
    shape, (beta1, beta2) = weights.shape, rates.betas
    given = _AdamW(
        weights=whole(weights, *shape, dtype=torch.float32),
        first=whole(moments[0], *shape, dtype=torch.float32),
        second=whole(moments[1], *shape, dtype=torch.float32),
        grads=whole(grads, *shape, dtype=torch.float32),
        count=weights.numel(), clip=rates.clip, decay=1 - rates.rate * rates.weight_decay,
        add_first=1 - beta1, keep_second=beta2, add_second=1 - beta2,
        root=math.sqrt(1 - beta2**rates.step), epsilon=rates.epsilon,
        size=rates.rate / (1 - beta1**rates.step), largest=LARGEST,
    )  # fmt: skip
    call("afina_adamw", given)
    return not given.odd
