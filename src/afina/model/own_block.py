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
from afina.model.folding import Masks, group_spans
from afina.model.fused import gate_back, norm_back, norm_of
from afina.model.grids import Heads
from afina.model.learned_products import learned_product
from afina.model.own_layer import OwnLayer, has_kernels
from afina.model.own_weights import OwnWeights, find_blocks
from afina.model.packed import How, PackedContext
from afina.model.rows_attention import KeptRows, attend_rows, attend_rows_back

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_PARTS: Final = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": set(_ATTENTION),
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
_PASSED_ON: Final = {"position_ids", "position_embeddings", "afina_ctx", "use_cache"}
_CLOSE: Final = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
_TRIED_TOKENS: Final = 24
_NEARLY_ALL: Final = 0.9
"""From such a share of needed places on, all are computed."""

Rope = tuple[torch.Tensor, torch.Tensor]


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
        kind = (block.learns, *(_facts(layer.get_submodule(name)) for name in _PARTS))
        if kind not in known:
            known[kind] = _tried(layer, block, model, weights)
        how = known[kind]
        if how is not None:
            top = places if index == len(blocks) - 1 else None
            made = replace(block, how=how)
            anchor = places.anchor if block.learns else places.anchor.detach()
            layer.forward = partial(_forward, made, anchor, top, layer.forward)
    return places


def _forward(
    block: OwnBlock,
    anchor: torch.Tensor,
    top: Places | None,
    own: Callable[..., Any],
    x: torch.Tensor,
    **others: Any,
) -> Any:
    context, rope = others.get("afina_ctx"), others.get("position_embeddings")
    unusual = any(value is not None for name, value in others.items() if name not in _PASSED_ON)
    unusual |= bool(others.get("use_cache")) or rope is None or type(context) is not PackedContext
    if unusual:
        return own(x, **others)
    rows = None if top is None else top.rows
    return _Block.apply(x, anchor, block, context, rope, rows)  # type: ignore[no-untyped-call]


def _facts(module: nn.Module) -> tuple[object, ...]:
    plain = (int, float, str, bool, type(None))
    said = sorted((k, v) for k, v in vars(module).items() if isinstance(v, plain))
    return (type(module), *(pair for pair in said if pair[0] != "layer_idx"))


def _parts(layer: nn.Module, path: str, weights: OwnWeights) -> OwnBlock | None:
    """What a layer consists of, if it has these parts and no others, on the processor."""
    for name, wanted in _PARTS.items():
        module = getattr(layer, name, None) if name else layer
        if not isinstance(module, nn.Module) or {n for n, _ in module.named_children()} != wanted:
            return None
    attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
    size = getattr(attention, "head_dim", None)
    if type(mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation") or not isinstance(size, int):
        return None
    groups = [
        _joined([(f"{path}.{parent}.{name}", getattr(layer.get_submodule(parent), name))
                 for name in names], weights)
        for parent, names in (
            ("self_attn", _ATTENTION[:3]), ("self_attn", _ATTENTION[3:]),
            ("mlp", ("gate_proj", "up_proj")), ("mlp", ("down_proj",)),
        )
    ]  # fmt: skip
    norms = [_norm(layer, path, f"{name}_layernorm", weights)
             for name in ("input", "post_attention")]  # fmt: skip
    if None in groups or None in norms:
        return None
    wide = [attention.get_submodule(name).out_features for name in _ATTENTION[:3]]
    queries, keys, values = (int(width) // size for width in wide)  # type: ignore[arg-type]
    if keys != values or queries % keys or sum(wide) != (queries + 2 * keys) * size:  # type: ignore[arg-type]
        return None
    return OwnBlock(Heads(queries, keys, size), tuple(norms), *groups)  # type: ignore[arg-type]


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


class _Spy:
    """A context that notes what a layer says about its attention."""

    def __init__(self, packed: PackedContext) -> None:
        self.packed = packed
        self.how: How | None = None

    def attend(self, layer: int, *tensors: torch.Tensor, **said: Any) -> torch.Tensor:
        """See afina.model.attention.AttentionContext."""
        self.how = How(said["scaling"], said["sliding_window"], said["softcap"])
        return self.packed.attend(layer, *tensors, **said)


def _tried(layer: nn.Module, block: OwnBlock, model: nn.Module, weights: OwnWeights) -> How | None:
    """What the layer says about its attention, if the block computes what the layer computes: its
    output, the gradient of its input, and those of its weights."""
    rope_of = next((m for n, m in model.named_modules() if n.endswith("rotary_emb")), None)
    weight = block.qkv.weight
    generator = torch.Generator().manual_seed(0)
    shape = (1, _TRIED_TOKENS, weight.shape[1])
    x, grad = (torch.randn(shape, generator=generator).to(weight.dtype) for _ in range(2))
    places = torch.tensor([[*range(7), *range(7, 12), *range(7, 10), *range(9)]])
    try:
        rope = rope_of(x, places)  # type: ignore[misc]
        if rope[0].shape != (1, _TRIED_TOKENS, block.heads.size):
            return None
        spy = _Spy(_tried_context())
        asked = {"attention_mask": None, "position_ids": places, "position_embeddings": rope}
        theirs = _pulled(lambda given: layer(given, **asked, afina_ctx=spy), x, grad, weights)
        if spy.how is None:
            return None
        made = partial(_forward, replace(block, how=spy.how), Places().anchor, None, layer.forward)
        ours = _pulled(
            lambda given: made(given, **asked, afina_ctx=_tried_context()), x, grad, weights
        )
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None  # it asks for something else than such layers do
    finally:
        weights.grads.zero_()
    close = _CLOSE[weight.dtype]
    past = (x, grad, torch.zeros(()))
    good = all(
        float((own - mine).norm()) <= close * float((own - residual).norm())
        for own, mine, residual in zip(theirs, ours, past, strict=True)
    )
    return spy.how if good else None


def _tried_context() -> PackedContext:
    prefix = (0, 7)
    shared = group_spans([(7, 5), (12, 3)], None, prefix)
    alone = group_spans([prefix, (15, 9)], None)
    return PackedContext(_TRIED_TOKENS, (*shared, *alone), Masks())


def _pulled(
    layer: Callable[[torch.Tensor], Any],
    x: torch.Tensor,
    grad: torch.Tensor,
    weights: OwnWeights,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A layer's output for x, the gradient of x, and those of all weights."""
    weights.grads.zero_()
    with torch.enable_grad():
        given = x.clone().requires_grad_()
        out = layer(given)
        if not isinstance(out, torch.Tensor):
            raise TypeError("the layer returns no tensor")
        out.backward(grad)  # type: ignore[no-untyped-call]
    assert given.grad is not None
    return out.detach(), given.grad, weights.grads.clone()


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
