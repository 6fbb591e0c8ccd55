"""A whole layer whose own weights learn, or stay frozen below those that do, as one operation.

What afina.model.block does for layers with low-rank terms, for layers without: query, key and value
are one product, gate and up another, each weight's gradient goes straight to its fp32 place. The
topmost layer computes, behind its attention, only the places whose logits a loss looks at: nothing
reads the others. A layer is replaced only where, tried out, it computes what its own code computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional

from afina.model import own_layer
from afina.model.block import rotate
from afina.model.fused import gate_back, norm_back, norm_of
from afina.model.grids import Heads
from afina.model.layer_trial import (
    ATTENTION,
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
from afina.model.learned_products import learned_product
from afina.model.own_layer import OwnLayer, has_kernels
from afina.model.own_weights import OwnWeights, find_blocks
from afina.model.packed import How, PackedContext
from afina.model.rows_attention import KeptRows, attend_rows, attend_rows_back

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEARLY_ALL: Final = 0.9
"""From such a share of needed places on, all are computed."""


@dataclass(frozen=True)
class Learned:
    """A weight `[out, in]` or `[width]`, and where its gradient goes; None of a frozen one."""

    weight: torch.Tensor
    grad: torch.Tensor | None

    def forward(self, x: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """x Wᵀ, with `beside` added to it."""
        out = functional.linear(x, self.weight)
        return out if beside is None else out.add_(beside)

    def backward(self, grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The gradient of x; that of the weight goes to its place."""
        if self.grad is not None:
            self.grad.add_(torch.mm(grad.t(), x))
        return torch.mm(grad, self.weight)


@dataclass(frozen=True)
class _Norm:
    scale: Learned
    epsilon: float

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return norm_of(x, self.scale.weight, self.epsilon)

    def backward(
        self,
        grad: torch.Tensor,
        x: torch.Tensor,
        inverse: torch.Tensor,
        beside: torch.Tensor | None,
    ) -> torch.Tensor:
        if self.scale.grad is not None:
            hat = (x * inverse).to(x.dtype)
            self.scale.grad.add_((grad * hat).sum(0, dtype=torch.float32))
        return norm_back(grad, x, self.scale.weight, inverse, beside)


class Places:
    """The places of the bin under way whose logits a loss looks at; None: all of them."""

    def __init__(self) -> None:
        self.rows: torch.Tensor | None = None
        self.by_kernels = 0
        """Layers that kernels of our own compute."""
        self.anchor = torch.zeros(1, requires_grad=True)
        """Asks autograd for the backward pass where nothing below learns."""

    @contextmanager
    def of(self, keep_K: torch.Tensor, capacity: int) -> Iterator[None]:
        """The kept places of a bin, filled up with others to the count that logits have, so that
        shapes stay few."""
        count = len(keep_K)
        if count <= _NEARLY_ALL * capacity:
            wanted = torch.zeros(capacity, dtype=torch.bool)
            wanted[keep_K] = True
            others = torch.nonzero(~wanted)[: count - int(wanted.sum()), 0]
            self.rows = torch.cat((torch.nonzero(wanted)[:, 0], others))
        try:
            yield
        finally:
            self.rows = None


@dataclass(frozen=True)
class OwnBlock:
    """What a layer consists of."""

    heads: Heads
    norms: tuple[_Norm, _Norm]
    qkv: Learned
    o: Learned
    gate_up: Learned
    down: Learned
    how: How = How(1.0, None, None)  # noqa: RUF009 - frozen

    @property
    def learns(self) -> bool:
        return self.qkv.grad is not None

    @cached_property
    def own(self) -> OwnLayer | None:
        """The same by kernels of our own, where they compute all of it."""
        every = (self.qkv, self.o, self.gate_up, self.down)
        products = [learned_product(one.weight, one.grad) for one in every]
        qkv, o, gate_up, down = products
        scales = tuple(norm.scale.weight for norm in self.norms)
        if not (qkv and o and gate_up and down and has_kernels(self.heads, self.how, scales)):
            return None
        first, second = ((norm.scale.weight, norm.epsilon) for norm in self.norms)
        of_first, of_second = (norm.scale.grad for norm in self.norms)
        return OwnLayer(self.heads, (first, second), qkv, o, gate_up, down, self.how,
                        (of_first, of_second))  # fmt: skip


def fuse_own_blocks(model: PreTrainedModel, weights: OwnWeights) -> Places:
    """Replaces the forward pass of the layers that can be replaced."""
    places = Places()
    path, blocks = find_blocks(model)
    known: dict[object, How | None] = {}
    for index, layer in enumerate(blocks):
        block = _parts(layer, f"{path}.{index}", weights)
        if block is None:
            continue
        kind = (block.learns, *kind_of(layer))
        if kind not in known:
            made_of = partial(_attempt, layer, block, Places().anchor, None)
            trial = Trial(model, block.heads, block.qkv.weight, weights.grads, compared=True)
            known[kind] = tried(layer, made_of, trial)
        how = known[kind]
        if how is not None:
            top = places if index == len(blocks) - 1 else None
            anchor = places.anchor if block.learns else places.anchor.detach()
            made = replace(block, how=how)
            layer.forward = partial(_forward, made, anchor, top, layer.forward)
            places.by_kernels += made.own is not None
    return places


def _attempt(
    layer: nn.Module, block: OwnBlock, anchor: torch.Tensor, top: Places | None, how: How
) -> Layer:
    return partial(_forward, replace(block, how=how), anchor, top, layer.forward)


def _forward(
    block: OwnBlock,
    anchor: torch.Tensor,
    top: Places | None,
    own: Callable[..., Any],
    x: torch.Tensor,
    **others: Any,
) -> Any:
    if not is_usual(others):
        return own(x, **others)
    context, rope = others["afina_ctx"], others["position_embeddings"]
    rows = None if top is None else top.rows
    return _Block.apply(x, anchor, block, context, rope, rows)  # type: ignore[no-untyped-call]


def _parts(layer: nn.Module, path: str, weights: OwnWeights) -> OwnBlock | None:
    """What a layer consists of, if it has these parts and no others, on the processor."""
    gates = ("SiLU", "SiLUActivation")
    if not has_parts(layer) or type(layer.get_submodule("mlp.act_fn")).__name__ not in gates:
        return None
    groups = [
        _joined([(f"{path}.{parent}.{name}", layer.get_submodule(f"{parent}.{name}"))
                 for name in names], weights)
        for parent, names in PRODUCTS
    ]  # fmt: skip
    norms = [_norm(layer, path, name, weights) for name in NORMS]
    if None in groups or None in norms:
        return None
    outs = (layer.get_submodule(f"self_attn.{name}").out_features for name in ATTENTION[:3])
    heads = heads_of(layer, tuple(outs))  # type: ignore[arg-type]
    return None if heads is None else OwnBlock(heads, tuple(norms), *groups)  # type: ignore[arg-type]


def _joined(layers: Sequence[tuple[str, nn.Module]], weights: OwnWeights) -> Learned | None:
    """The layers' weights one below the other, if they are plain ones without a bias."""
    linears = [layer for _, layer in layers if isinstance(layer, nn.Linear)]
    plain = len(linears) == len(layers) and all(linear.bias is None for linear in linears)
    if not plain or not linears[0].weight.is_cpu:
        return None
    names = [f"{name}.weight" for name, _ in layers]
    if names[0] in weights.places:
        return _learned(weights, names)
    if any(name in weights.places for name in names):
        return None
    if len(linears) == 1:
        return Learned(linears[0].weight.data, None)
    weight = torch.cat([linear.weight.data for linear in linears])
    sizes = [linear.out_features for linear in linears]
    for linear, part in zip(linears, torch.split(weight, sizes), strict=True):
        linear.weight.data = part
    return Learned(weight, None)


def _learned(weights: OwnWeights, names: Sequence[str]) -> Learned | None:
    found = weights.joined(names)
    return None if found is None else Learned(*found)


def _norm(layer: nn.Module, path: str, name: str, weights: OwnWeights) -> _Norm | None:
    module = layer.get_submodule(name)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    scale = getattr(module, "weight", None)
    known = type(module).__name__.endswith("RMSNorm") and isinstance(epsilon, float)
    if not known or not isinstance(scale, torch.Tensor) or scale.dim() != 1:
        return None
    full = f"{path}.{name}.weight"
    own = _learned(weights, [full]) if full in weights.places else Learned(scale.data, None)
    return None if own is None else _Norm(own, epsilon)  # type: ignore[arg-type]


@dataclass
class _Kept:
    """What the backward pass of a layer needs."""

    x: torch.Tensor
    inverse: torch.Tensor
    normed: torch.Tensor
    attention: KeptRows
    attended: torch.Tensor
    x2: torch.Tensor
    inverse2: torch.Tensor
    normed2: torch.Tensor
    gate_up: torch.Tensor
    opened: torch.Tensor


class _Block(torch.autograd.Function):
    """x2 = x + o(attention(norm(x))); x2 + down(silu(gate(norm(x2))) * up(norm(x2))), of some rows
    or all."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x_1TW: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        block: OwnBlock,
        context: PackedContext,
        rope: Rope,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        x = x_1TW.reshape(-1, x_1TW.shape[-1])
        ctx.block, ctx.context, ctx.shape, ctx.rows = block, context, x_1TW.shape, rows
        if block.own is not None:
            ctx.turn = (rope[0][0], rope[1][0])
            done, ctx.kept = own_layer.forward(block.own, x.contiguous(), context, ctx.turn, rows)
            return done.view(x_1TW.shape)
        first, second = block.norms
        normed, inverse = first.forward(x)
        qkv = block.qkv.forward(normed)
        turn = (rope[0].transpose(0, 1), rope[1].transpose(0, 1))
        qkv_THD = qkv.view(len(x), -1, block.heads.size)
        rotate(qkv_THD[:, : block.heads.queries + block.heads.keys], turn)
        attended, kept = attend_rows(qkv_THD, context, block.heads, block.how)
        beside = x
        if rows is not None:
            attended, beside = attended[rows], x[rows]
        x2 = block.o.forward(attended, beside)
        normed2, inverse2 = second.forward(x2)
        gate_up = block.gate_up.forward(normed2)
        gate, up = gate_up.chunk(2, -1)
        opened = functional.silu(gate)
        out = block.down.forward(opened * up, x2)
        if rows is not None:
            out = torch.zeros_like(x).index_copy_(0, rows, out)
        ctx.turn = turn
        ctx.kept = _Kept(x, inverse, normed, kept, attended, x2, inverse2, normed2, gate_up, opened)
        return out.view(x_1TW.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        block: OwnBlock = ctx.block
        rows: torch.Tensor | None = ctx.rows
        kept, ctx.kept = ctx.kept, None
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        if block.own is not None:
            wanted: bool = ctx.needs_input_grad[0]
            of_input = own_layer.backward(
                block.own, kept, grad.contiguous(), ctx.context, ctx.turn, rows, wanted=wanted
            )
            given = None if of_input is None else of_input.view(ctx.shape)
            return given, None, None, None, None, None
        first, second = block.norms
        if rows is not None:
            grad = grad[rows]
        gate, up = kept.gate_up.chunk(2, -1)
        of_inner = block.down.backward(grad, kept.opened * up)
        of_both = torch.empty_like(kept.gate_up)
        of_gate, of_up = of_both.chunk(2, -1)
        gate_back(of_inner, gate, up, kept.opened, (of_gate, of_up))
        of_normed = block.gate_up.backward(of_both, kept.normed2)
        of_x2 = second.backward(of_normed, kept.x2, kept.inverse2, grad)
        of_some = block.o.backward(of_x2, kept.attended)
        # the places of padding read the row of zeros behind the last token
        of_attended = grad.new_zeros(len(kept.x) + 1, of_some.shape[-1])
        if rows is None:
            of_attended[:-1] = of_some
        else:
            of_attended.index_copy_(0, rows, of_some)
            of_x2 = torch.zeros_like(kept.x).index_copy_(0, rows, of_x2)
        of_qkv = attend_rows_back(kept.attention, of_attended, ctx.context, block.heads, block.how)
        rotate(of_qkv[:, : block.heads.queries + block.heads.keys], ctx.turn, back=True)
        of_normed = block.qkv.backward(of_qkv.view(len(kept.x), -1), kept.normed)
        of_x = first.backward(of_normed, kept.x, kept.inverse, of_x2)
        return of_x.view(ctx.shape), None, None, None, None, None
