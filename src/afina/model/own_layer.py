"""A layer in the manner of Llama by kernels of our own, forward and backward by hand: what
afina.model.block does with torch's operations, in fewer passes over memory.

Kept for the backward pass are only the layer's input, queries, keys and values, what attention
gave, the residual, gate and up. Norms need not be made again, and what the gate let through comes
with its gradient: memory that is touched for the first time costs more than a pass over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from afina.domain.foresight import HEAD_STEP
from afina.model.grids import Heads
from afina.model.kernels.attention import Attended, attend, attend_back
from afina.model.kernels.passes import (
    add_scale_gradient,
    gate_forward,
    norm_backward,
    norm_forward,
    rotate_heads,
)
from afina.model.learned_products import LearnedProduct
from afina.model.own_products import OwnProduct
from afina.model.packed import How, PackedContext

Rope = tuple[torch.Tensor, torch.Tensor]
Some = OwnProduct | LearnedProduct


@dataclass(frozen=True)
class OwnLayer:
    """What a layer consists of: either all of its products have low-rank terms, or none has.
    `norms` are weights and epsilons."""

    heads: Heads
    norms: tuple[tuple[torch.Tensor, float], tuple[torch.Tensor, float]]
    qkv: Some
    o: Some
    gate_up: Some
    down: Some
    how: How
    norm_grads: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    """Where the gradients of the norms' weights go; None of a frozen one."""


@dataclass
class Kept:
    """What the backward pass of a layer needs."""

    x: torch.Tensor
    inverse: torch.Tensor
    attended: Attended
    some: torch.Tensor
    """What `o` read: what attention gave, of some rows or all."""
    x2: torch.Tensor
    inverse2: torch.Tensor
    gate_up: torch.Tensor
    lows: tuple[Any, Any, Any, Any]
    """Of qkv, o, gate and up, down: x Aᵀ, where there is an A."""


def has_kernels(heads: Heads, how: How, norms: tuple[torch.Tensor, ...]) -> bool:
    """Whether there are kernels for such heads and such attention."""
    plain = all(one.dtype == torch.bfloat16 and one.is_contiguous() for one in norms)
    return plain and how.softcap is None and heads.size % HEAD_STEP == 0


def forward(
    layer: OwnLayer,
    x: torch.Tensor,
    context: PackedContext,
    rope: Rope,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Kept]:
    """The layer's output for `[T, W]`; cos and sin are `[T, D]`. With `rows`, that of these rows
    alone, and 0 of the others."""
    heads = layer.heads
    normed, inverse = norm_forward(x, *layer.norms[0])
    qkv, low_qkv = layer.qkv.forward(normed)
    rotate_heads(qkv, heads.queries + heads.keys, *rope)
    out, tops = attend(qkv, context.jobs(layer.how.window), heads, layer.how.scaling)
    some, beside = (out, x) if rows is None else (out[rows], x[rows])
    x2, low_o = layer.o.forward(some, beside)
    normed2, inverse2 = norm_forward(x2, *layer.norms[1])
    if layer.gate_up.can_gate:
        gate_up, low_gate_up, inner = layer.gate_up.forward_gated(normed2)
    else:
        gate_up, low_gate_up = layer.gate_up.forward(normed2)
        inner = gate_forward(gate_up)
    done, low_down = layer.down.forward(inner, x2)
    lows = (low_qkv, low_o, low_gate_up, low_down)
    kept = Kept(x, inverse, Attended(qkv, out, tops), some, x2, inverse2, gate_up, lows)
    return done if rows is None else _put_back(done, rows, x), kept


def _put_back(some: torch.Tensor, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(like.shape[0], some.shape[1]).index_copy_(0, rows, some)


def _learn_norm(
    into: torch.Tensor | None, grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor
) -> None:
    if into is not None:
        add_scale_gradient(into, grad, x, inverse)


def backward(  # noqa: PLR0913
    layer: OwnLayer,
    kept: Kept,
    grad: torch.Tensor,
    context: PackedContext,
    rope: Rope,
    rows: torch.Tensor | None = None,
    *,
    wanted: bool,
) -> torch.Tensor | None:
    """The gradient of the layer's input where it is wanted; those of what learns go to their
    places. What is kept can be used once."""
    heads, how = layer.heads, layer.how
    grad = grad if rows is None else grad[rows]
    low_qkv, low_o, low_gate_up, low_down = kept.lows
    of_both = kept.gate_up
    # a union's members take what they gave
    low: Any
    low, inner = layer.down.backward(grad, both=of_both)
    layer.down.add_gradients(grad, low, inner, low_down)
    low, of_normed = layer.gate_up.backward(of_both)
    weight = layer.norms[1][0]
    norm = (weight, kept.inverse2)
    layer.gate_up.add_gradients(of_both, low, kept.x2, low_gate_up, norm)
    _learn_norm(layer.norm_grads[1], of_normed, kept.x2, kept.inverse2)
    of_x2 = norm_backward(of_normed, kept.x2, weight, kept.inverse2, grad)
    low, of_some = layer.o.backward(of_x2)
    layer.o.add_gradients(of_x2, low, kept.some, low_o)
    if rows is not None:
        of_some, of_x2 = _put_back(of_some, rows, kept.x), _put_back(of_x2, rows, kept.x)
    of_qkv = attend_back(kept.attended, of_some, context.jobs(how.window), heads, how.scaling)
    rotate_heads(of_qkv, heads.queries + heads.keys, *rope, back=True)
    norm_learns = layer.norm_grads[0] is not None
    low, of_normed = layer.qkv.backward(of_qkv, wanted=wanted or norm_learns)
    weight = layer.norms[0][0]
    layer.qkv.add_gradients(of_qkv, low, kept.x, low_qkv, (weight, kept.inverse))
    _learn_norm(layer.norm_grads[0], of_normed, kept.x, kept.inverse)
    if not wanted:
        return None
    return norm_backward(of_normed, kept.x, weight, kept.inverse, of_x2)
