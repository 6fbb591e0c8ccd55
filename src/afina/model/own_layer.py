"""A layer in the manner of Llama by kernels of our own, forward and backward by hand: what
afina.model.block does with torch's operations, in fewer passes over memory.

Kept for the backward pass are only the layer's input, queries, keys and values, what attention
gave, the residual, gate and up. Norms need not be made again, and what the gate let through comes
with its gradient: memory that is touched for the first time costs more than a pass over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afina.model.grids import Heads
from afina.model.kernels.attention import HEAD_STEP, Attended, attend, attend_back
from afina.model.kernels.passes import (
    gate_forward,
    norm_backward,
    norm_forward,
    rotate_heads,
)
from afina.model.own_products import OwnProduct
from afina.model.packed import How, PackedContext

Rope = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class OwnLayer:
    """What a layer consists of; `norms` are weights and epsilons."""

    heads: Heads
    norms: tuple[tuple[torch.Tensor, float], tuple[torch.Tensor, float]]
    qkv: OwnProduct
    o: OwnProduct
    gate_up: OwnProduct
    down: OwnProduct
    how: How


@dataclass
class Kept:
    """What the backward pass of a layer needs."""

    x: torch.Tensor
    inverse: torch.Tensor
    low_qkv: torch.Tensor
    attended: Attended
    low_o: torch.Tensor
    x2: torch.Tensor
    inverse2: torch.Tensor
    low_gate_up: torch.Tensor
    gate_up: torch.Tensor
    low_down: torch.Tensor


def has_kernels(heads: Heads, how: How, norms: tuple[torch.Tensor, ...]) -> bool:
    """Whether there are kernels for such heads and such attention."""
    plain = all(one.dtype == torch.bfloat16 and one.is_contiguous() for one in norms)
    return plain and how.softcap is None and heads.size % HEAD_STEP == 0


def forward(
    layer: OwnLayer, x: torch.Tensor, context: PackedContext, rope: Rope
) -> tuple[torch.Tensor, Kept]:
    """The layer's output for `[T, W]`; cos and sin are `[T, D]`."""
    heads = layer.heads
    normed, inverse = norm_forward(x, *layer.norms[0])
    qkv, low_qkv = layer.qkv.forward(normed)
    rotate_heads(qkv, heads.queries + heads.keys, *rope)
    out, tops = attend(qkv, context.jobs(layer.how.window), heads, layer.how.scaling)
    x2, low_o = layer.o.forward(out, x)
    normed2, inverse2 = norm_forward(x2, *layer.norms[1])
    if layer.gate_up.can_gate:
        gate_up, low_gate_up, inner = layer.gate_up.forward_gated(normed2)
    else:
        gate_up, low_gate_up = layer.gate_up.forward(normed2)
        inner = gate_forward(gate_up)
    done, low_down = layer.down.forward(inner, x2)
    kept = Kept(
        x, inverse, low_qkv, Attended(qkv, out, tops), low_o,
        x2, inverse2, low_gate_up, gate_up, low_down,
    )  # fmt: skip
    return done, kept


def backward(
    layer: OwnLayer,
    kept: Kept,
    grad: torch.Tensor,
    context: PackedContext,
    rope: Rope,
    *,
    wanted: bool,
) -> torch.Tensor | None:
    """The gradient of the layer's input where it is wanted; those of the matrices go to their
    places. What is kept can be used once."""
    heads, how = layer.heads, layer.how
    of_both = kept.gate_up
    low, inner = layer.down.backward(grad, both=of_both)
    layer.down.add_gradients(grad, low, inner, kept.low_down)
    low, of_normed = layer.gate_up.backward(of_both)
    weight = layer.norms[1][0]
    norm = (weight, kept.inverse2)
    layer.gate_up.add_gradients(of_both, low, kept.x2, kept.low_gate_up, norm)
    of_x2 = norm_backward(of_normed, kept.x2, weight, kept.inverse2, grad)
    low, of_out = layer.o.backward(of_x2)
    layer.o.add_gradients(of_x2, low, kept.attended.out, kept.low_o)
    of_qkv = attend_back(kept.attended, of_out, context.jobs(how.window), heads, how.scaling)
    rotate_heads(of_qkv, heads.queries + heads.keys, *rope, back=True)
    low, of_normed = layer.qkv.backward(of_qkv, wanted=wanted)
    weight = layer.norms[0][0]
    layer.qkv.add_gradients(of_qkv, low, kept.x, kept.low_qkv, (weight, kept.inverse))
    if not wanted:
        return None
    return norm_backward(of_normed, kept.x, weight, kept.inverse, of_x2)
