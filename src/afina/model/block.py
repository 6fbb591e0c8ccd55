"""A whole layer of a network in the manner of Llama as one operation, forward and backward by hand.

A layer is some three hundred operations when autograd strings them together, and on short bins
their bookkeeping takes longer than their arithmetic. By hand it is a third of that: each tensor is
moved to where attention wants it once and back once, residuals and gradients are added in place.
A layer is replaced only where, tried out, it computes what its own code computes; a layer with
anything more or anything else keeps its own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from afina.model import own_layer
from afina.model.fused import (
    fused_norm_epsilon,
    gate_back,
    is_fused_gate,
    norm_back,
    norm_of,
)
from afina.model.grids import Heads
from afina.model.layer_trial import (
    NORMS,
    PRODUCTS,
    Layer,
    Rope,
    Trial,
    has_parts,
    heads_of,
    is_usual,
    kind_of,
    tried,
)
from afina.model.lora import LoraLinear
from afina.model.own_layer import OwnLayer, has_kernels
from afina.model.packed import How, PackedContext
from afina.model.products import JointProduct
from afina.model.rows_attention import KeptRows, attend_rows, attend_rows_back
from afina.model.trained import TrainedAdapter


@dataclass(frozen=True)
class _Norm:
    weight: torch.Tensor
    epsilon: float


@dataclass(frozen=True)
class Block:
    """What a layer consists of."""

    heads: Heads
    norms: tuple[_Norm, _Norm]
    qkv: JointProduct
    o: JointProduct
    gate_up: JointProduct
    down: JointProduct
    how: How = How(1.0, None, None)  # noqa: RUF009 - frozen

    @cached_property
    def own(self) -> OwnLayer | None:
        """The same by kernels of our own, where they compute all of it."""
        qkv, o, gate_up, down = self.qkv.own, self.o.own, self.gate_up.own, self.down.own
        scales = tuple(norm.weight for norm in self.norms)
        if not (qkv and o and gate_up and down and has_kernels(self.heads, self.how, scales)):
            return None
        first, second = ((norm.weight.data, norm.epsilon) for norm in self.norms)
        return OwnLayer(self.heads, (first, second), qkv, o, gate_up, down, self.how)


@dataclass(frozen=True)
class Replaced:
    """How many layers are one operation, and how many of them by kernels of our own."""

    all: int
    own: int


def fuse_blocks(model: nn.Module, adapter: TrainedAdapter) -> Replaced:
    """Replaces the forward pass of the layers that can be replaced."""
    # what differs from plain low-rank terms has its own ways through a layer
    if type(adapter) is not TrainedAdapter or adapter.spec.dropout:
        return Replaced(0, 0)
    known: dict[object, How | None] = {}
    count = own = 0
    for layer in list(model.modules()):
        block = _parts(layer, adapter)
        if block is None:
            continue
        kind = kind_of(layer)
        if kind not in known:
            made_of = partial(_attempt, layer, block, adapter)
            trial = Trial(model, block.heads, block.qkv.weight, adapter.grads, compared=False)
            known[kind] = tried(layer, made_of, trial)
        how = known[kind]
        if how is not None:
            made = replace(block, how=how)
            layer.forward = partial(_forward, made, adapter, layer.forward)
            count += 1
            own += made.own is not None
    return Replaced(count, own)


def _attempt(layer: nn.Module, block: Block, adapter: TrainedAdapter, how: How) -> Layer:
    return partial(_forward, replace(block, how=how), adapter, layer.forward)


def _forward(
    block: Block, adapter: TrainedAdapter, own: Callable[..., Any], x: torch.Tensor, **others: Any
) -> Any:
    if not is_usual(others) or (adapter.dropout_generator is not None and adapter.spec.dropout):
        return own(x, **others)
    return _Block.apply(  # type: ignore[no-untyped-call]
        x, adapter.anchor, block, others["afina_ctx"], others["position_embeddings"]
    )


def _parts(layer: nn.Module, adapter: TrainedAdapter) -> Block | None:
    """What a layer consists of, if it has these parts and no others."""
    if not has_parts(layer) or not is_fused_gate(layer.get_submodule("mlp")):
        return None
    norms = [_norm_part(layer.get_submodule(name)) for name in NORMS]
    products = [
        _product(adapter, [layer.get_submodule(f"{parent}.{name}") for name in names])
        for parent, names in PRODUCTS
    ]
    if None in norms or None in products:
        return None
    heads = heads_of(layer, tuple(products[0].sizes))  # type: ignore[union-attr]
    return None if heads is None else Block(heads, tuple(norms), *products)  # type: ignore[arg-type]


def _norm_part(module: nn.Module) -> _Norm | None:
    epsilon = fused_norm_epsilon(module)
    return None if epsilon is None else _Norm(module.weight, epsilon)  # type: ignore[arg-type]


def _product(adapter: TrainedAdapter, layers: Sequence[nn.Module]) -> JointProduct | None:
    """The one product that these layers are, if they are one, on the processor."""
    names = [layer.name for layer in layers if isinstance(layer, LoraLinear)]
    if len(names) != len(layers):
        return None
    product = adapter.product(names[0])
    together = product is not None and [adapter.product(n) is product for n in names]
    if not product or not all(together or ()) or len(product.views) != len(names):
        return None
    return product if product.weight.is_cpu else None


@dataclass
class _Kept:
    """What the backward pass of a layer needs."""

    x: torch.Tensor
    inverse: torch.Tensor
    normed: torch.Tensor
    low_qkv: torch.Tensor
    attention: KeptRows
    attended: torch.Tensor
    low_o: torch.Tensor
    x2: torch.Tensor
    inverse2: torch.Tensor
    normed2: torch.Tensor
    low_gate_up: torch.Tensor
    gate_up: torch.Tensor
    opened: torch.Tensor
    low_down: torch.Tensor


class _Block(torch.autograd.Function):
    """x2 = x + o(attention(norm(x))); x2 + down(silu(gate(norm(x2))) * up(norm(x2)))."""

    @staticmethod
    def forward(
        ctx: Any,
        x_1TW: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        block: Block,
        context: PackedContext,
        rope: Rope,
    ) -> torch.Tensor:
        x = x_1TW.reshape(-1, x_1TW.shape[-1])
        ctx.block, ctx.context, ctx.shape = block, context, x_1TW.shape
        if block.own is not None:
            ctx.turn = (rope[0][0], rope[1][0])
            out, ctx.kept = own_layer.forward(block.own, x.contiguous(), context, ctx.turn)
            return out.view(x_1TW.shape)
        first, second = block.norms
        normed, inverse = norm_of(x, first.weight, first.epsilon)
        qkv, low_qkv = block.qkv.forward(normed)
        turn = (rope[0].transpose(0, 1), rope[1].transpose(0, 1))
        qkv_THD = qkv.view(len(x), -1, block.heads.size)
        rotate(qkv_THD[:, : block.heads.queries + block.heads.keys], turn)
        attended, rows = attend_rows(qkv_THD, context, block.heads, block.how)
        x2, low_o = block.o.forward(attended, x)
        normed2, inverse2 = norm_of(x2, second.weight, second.epsilon)
        gate_up, low_gate_up = block.gate_up.forward(normed2)
        gate, up = gate_up.chunk(2, -1)
        opened = functional.silu(gate)
        out, low_down = block.down.forward(opened * up, x2)
        ctx.turn = turn
        ctx.kept = _Kept(
            x, inverse, normed, low_qkv, rows, attended, low_o,
            x2, inverse2, normed2, low_gate_up, gate_up, opened, low_down,
        )  # fmt: skip
        return out.view(x_1TW.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        block: Block = ctx.block
        kept, ctx.kept = ctx.kept, None
        first, second = block.norms
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        if block.own is not None:
            wanted: bool = ctx.needs_input_grad[0]
            of_input = own_layer.backward(
                block.own, kept, grad.contiguous(), ctx.context, ctx.turn, wanted=wanted
            )
            given = None if of_input is None else of_input.view(ctx.shape)
            return given, None, None, None, None
        gate, up = kept.gate_up.chunk(2, -1)
        of_inner = block.down.backward(grad, kept.opened * up, kept.low_down)
        of_both = torch.empty_like(kept.gate_up)
        of_gate, of_up = of_both.chunk(2, -1)
        gate_back(of_inner, gate, up, kept.opened, (of_gate, of_up))
        of_normed = block.gate_up.backward(of_both, kept.normed2, kept.low_gate_up)
        of_x2 = norm_back(of_normed, kept.x2, second.weight, kept.inverse2, grad)
        # the places of padding read the row of zeros behind the last token
        of_attended = grad.new_empty(len(grad) + 1, kept.attended.shape[-1])
        of_attended[-1].zero_()
        block.o.backward(of_x2, kept.attended, kept.low_o, of_attended[:-1])
        of_qkv = attend_rows_back(kept.attention, of_attended, ctx.context, block.heads, block.how)
        rotate(of_qkv[:, : block.heads.queries + block.heads.keys], ctx.turn, back=True)
        of_qkv_TO = of_qkv.view(len(grad), -1)
        if not ctx.needs_input_grad[0]:
            block.qkv.backward_low(of_qkv_TO, kept.normed, kept.low_qkv)
            return None, None, None, None, None
        of_normed = block.qkv.backward(of_qkv_TO, kept.normed, kept.low_qkv)
        of_x = norm_back(of_normed, kept.x, first.weight, kept.inverse, of_x2)
        return of_x.view(ctx.shape), None, None, None, None


def rotate(x_THD: torch.Tensor, turn: Rope, *, back: bool = False) -> None:
    """Turns queries and keys by their positions, in place, or their gradients back; cos and sin are
    `[T, 1, D]`. RoPE, halves against halves: https://arxiv.org/abs/2104.09864"""
    cos, sin = turn
    half = x_THD.shape[-1] // 2
    low, high = x_THD[..., :half], x_THD[..., half:]
    sin_low, sin_high = sin[..., :half], sin[..., half:]
    out = x_THD * cos
    if back:
        out[..., :half].addcmul_(high, sin_high)
        out[..., half:].addcmul_(low, sin_low, value=-1)
    else:
        out[..., :half].addcmul_(high, sin_low, value=-1)
        out[..., half:].addcmul_(low, sin_high)
    x_THD.copy_(out)
