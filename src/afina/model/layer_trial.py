"""Whether a layer of a network can be one operation: what it consists of, and whether the operation
computes, tried out, what the layer's own code computes.

Shared by afina.model.block, for layers with low-rank terms, and afina.model.own_block, for layers
whose own weights learn or stay frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from afina.model.folding import Masks, Span, group_spans
from afina.model.grids import Heads
from afina.model.packed import How, PackedContext

ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP: Final = ("gate_proj", "up_proj", "down_proj")
NORMS: Final = ("input_layernorm", "post_attention_layernorm")
PRODUCTS: Final = (
    ("self_attn", ATTENTION[:3]),
    ("self_attn", ATTENTION[3:]),
    ("mlp", MLP[:2]),
    ("mlp", MLP[2:]),
)
"""Where the layers of the four products lie: query, key and value; output; gate and up; down."""
_PARTS: Final = {
    "": {"self_attn", "mlp", *NORMS},
    "self_attn": set(ATTENTION),
    "mlp": {*MLP, "act_fn"},
}
_PASSED_ON: Final = {"position_ids", "position_embeddings", "afina_ctx", "use_cache"}
_CLOSE: Final = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""How far a layer's output and gradients, without the residual, may be from its own code's."""
_TRIED_TOKENS: Final = 24

Rope = tuple[torch.Tensor, torch.Tensor]
Layer = Callable[..., Any]


def has_parts(layer: nn.Module) -> bool:
    """Whether a layer has the parts of Llama's and no others."""
    for name, wanted in _PARTS.items():
        module = getattr(layer, name, None) if name else layer
        if not isinstance(module, nn.Module) or {n for n, _ in module.named_children()} != wanted:
            return False
    return True


def heads_of(layer: nn.Module, outs: tuple[int, int, int]) -> Heads | None:
    """Its heads, where query, key and value have so many outputs; None if they are none."""
    size = getattr(layer.get_submodule("self_attn"), "head_dim", None)
    if not isinstance(size, int):
        return None
    queries, keys, values = (width // size for width in outs)
    if keys != values or queries % keys or sum(outs) != (queries + 2 * keys) * size:
        return None
    return Heads(queries, keys, size)


def kind_of(layer: nn.Module) -> tuple[object, ...]:
    """What tells one kind of layer from another, beside its place and its weights."""
    return tuple(_facts(layer.get_submodule(name)) for name in _PARTS)


def _facts(module: nn.Module) -> tuple[object, ...]:
    plain = (int, float, str, bool, type(None))
    said = sorted((k, v) for k, v in vars(module).items() if isinstance(v, plain))
    return (type(module), *(pair for pair in said if pair[0] != "layer_idx"))


def is_usual(others: Mapping[str, Any]) -> bool:
    """Whether a layer is called as training calls it, with nothing that only its own code knows."""
    unusual = any(value is not None for name, value in others.items() if name not in _PASSED_ON)
    unusual |= bool(others.get("use_cache")) or others.get("position_embeddings") is None
    return not unusual and type(others.get("afina_ctx")) is PackedContext


class _Spy:
    """A context that notes what a layer says about its attention."""

    def __init__(self, packed: PackedContext) -> None:
        self.packed = packed
        self.how: How | None = None

    def attend(self, layer: int, *tensors: torch.Tensor, **said: Any) -> torch.Tensor:
        """See afina.model.attention.AttentionContext."""
        self.how = How(said["scaling"], said["sliding_window"], said["softcap"])
        return self.packed.attend(layer, *tensors, **said)


@dataclass(frozen=True)
class Trial:
    """What a layer is tried out with: the network it is of, its heads, its weight of query, key and
    value, and where the gradients of what learns go."""

    model: nn.Module
    heads: Heads
    weight: torch.Tensor
    grads: torch.Tensor
    compared: bool
    """Whether those gradients are compared too."""


def tried(layer: nn.Module, made: Callable[[How], Layer], trial: Trial) -> How | None:
    """What the layer says about its attention, if what is `made` of that computes what the layer
    computes: its output and the gradient of its input, for a beginning, two chats behind it and one
    alone."""
    rope_of = next((m for n, m in trial.model.named_modules() if n.endswith("rotary_emb")), None)
    generator = torch.Generator().manual_seed(0)
    shape, dtype = (1, _TRIED_TOKENS, trial.weight.shape[1]), trial.weight.dtype
    x, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    places = torch.tensor([[*range(7), *range(7, 12), *range(7, 10), *range(9)]])
    try:
        rope = rope_of(x, places)  # type: ignore[misc]
        if rope[0].shape != (1, _TRIED_TOKENS, trial.heads.size):
            return None
        spy = _Spy(_context())
        asked = {"attention_mask": None, "position_ids": places, "position_embeddings": rope}
        theirs = _pulled(layer, {**asked, "afina_ctx": spy}, (x, grad), trial.grads)
        if spy.how is None:
            return None
        asked["afina_ctx"] = _context()
        ours = _pulled(made(spy.how), asked, (x, grad), trial.grads)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None  # it asks for something else than such layers do
    finally:
        trial.grads.zero_()
    past = (x, grad, *([torch.zeros(())] if trial.compared else []))
    good = all(
        float((own - mine).norm()) <= _CLOSE[dtype] * float((own - residual).norm())
        for own, mine, residual in zip(theirs, ours, past, strict=False)
    )
    return spy.how if good else None


def _context() -> PackedContext:
    prefix: Span = (0, 7)
    shared = group_spans([(7, 5), (12, 3)], None, prefix)
    alone = group_spans([prefix, (15, 9)], None)
    return PackedContext(_TRIED_TOKENS, (*shared, *alone), Masks())


def _pulled(
    layer: Layer,
    asked: Mapping[str, Any],
    pair: tuple[torch.Tensor, torch.Tensor],
    grads: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A layer's output for x, of a pair of x and the output's gradient, the gradient of x, and
    those of its weights."""
    x, grad = pair
    grads.zero_()
    with torch.enable_grad():
        given = x.clone().requires_grad_()
        out = layer(given, **asked)
        if not isinstance(out, torch.Tensor):
            raise TypeError("the layer returns no tensor")
        out.backward(grad)  # type: ignore[no-untyped-call]
    assert given.grad is not None
    return out.detach(), given.grad, grads.clone()
