"""The forward pass of plain decoders (Llama, Mistral, Qwen 2 and 3) with as few operations as can
be: at a few rows a step, what surrounds the products costs as much as they do.

It reads the network's own modules and computes what they compute, to the bit: heads stay side by
side in each position, so that nothing is transposed between product and attention; queries and keys
are rotated together; what can be is done in place. A network that is not of a known make runs as
transformers wrote it, and so does one that answers differently when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import embedding, silu

from afina.serving.cache import Attending, StepContext
from afina.serving.layers import Product, ServedLayers

_MAKES = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
)
_ACTIVATIONS = frozenset({"SiLU", "SiLUActivation"})


@dataclass(frozen=True)
class Norm:
    """Division by the root mean square, and a weight."""

    weight: torch.Tensor
    eps: float

    @staticmethod
    def of(module: Any) -> Norm:
        return Norm(module.weight.data, module.variance_epsilon)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Rounded where transformers rounds: before the weight, not after it.
        wide = x.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(self.eps).rsqrt_()
        return (wide * scale).to(x.dtype).mul_(self.weight)


@dataclass(frozen=True)
class Layer:
    """What a layer is made of."""

    attending: Attending
    heads: tuple[int, int]
    """Query heads and key heads."""
    before: Norm
    qkv: Product
    head_norms: tuple[Norm, Norm] | None
    out: Product
    between: Norm
    gate_up: Product
    down: Product


class Decoder:
    """A network whose steps are computed here. Raises LookupError if it is of another make."""

    def __init__(self, model: Any, served: ServedLayers) -> None:
        if type(model).__name__ not in _MAKES:
            raise LookupError(type(model).__name__)
        self._served = served
        inner = model.model
        self.embedding: torch.Tensor = inner.embed_tokens.weight.data
        self.rotary = inner.rotary_emb
        self.last = Norm.of(inner.norm)
        self.head = served.products["lm_head"]
        window = getattr(model.config, "sliding_window", None)
        self.layers = [
            _layer(index, layer, served, window) for index, layer in enumerate(inner.layers)
        ]

    def __call__(self, context: StepContext, kept: torch.Tensor) -> torch.Tensor:
        """Logits `[len(kept), V]` of a step's positions `kept`."""
        h = embedding(context.ids[0], self.embedding)
        cos, sin = self.rotary(h.unsqueeze(0), context.positions)
        half = sin.shape[-1] // 2
        # a half's sign stands in the table, not in every head: the same bits
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        turn = cos[0].unsqueeze(1), sin[0].unsqueeze(1)
        product = self._served.product
        for layer in self.layers:
            h = self._attended(layer, h, turn, context).add_(h)
            gate, up = product(layer.gate_up, layer.between(h)).chunk(2, -1)
            h = product(layer.down, silu(gate).mul_(up)).add_(h)
        return product(self.head, self.last(h.index_select(0, kept)))

    def _attended(
        self,
        layer: Layer,
        h: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        context: StepContext,
    ) -> torch.Tensor:
        heads, kv_heads = layer.heads
        size = turn[0].shape[-1]
        qkv = self._served.product(layer.qkv, layer.before(h)).view(h.shape[0], -1, size)
        turned, v = torch.split_with_sizes(qkv, (heads + kv_heads, kv_heads), 1)
        if layer.head_norms is not None:
            q_norm, k_norm = layer.head_norms
            turned = torch.cat([q_norm(turned[:, :heads]), k_norm(turned[:, heads:])], 1)
        q, k = torch.split_with_sizes(_turned(turned, *turn), (heads, kv_heads), 1)
        out = context.attend_rows(q, k, v, layer.attending).view(h.shape[0], -1)
        return self._served.product(layer.out, out)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: the halves of a head are the two coordinates; the first half of `sin` is
    negated."""
    across = torch.roll(x, x.shape[-1] // 2, -1)
    return (x * cos).add_(across.mul_(sin))


def _layer(index: int, layer: Any, served: ServedLayers, window: int | None) -> Layer:
    attention = layer.self_attn
    prefix = f"model.layers.{index}"

    def product(*names: str) -> Product:
        found = served.products[f"{prefix}.{names[0]}"]
        if found.names != [f"{prefix}.{name}" for name in names]:
            raise LookupError(f"{names[0]} is not one product with its like")
        return found

    size = attention.head_dim
    qkv = product("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    if qkv.sizes[1] != qkv.sizes[2] or type(layer.mlp.act_fn).__name__ not in _ACTIVATIONS:
        raise LookupError("values or activation of another kind")
    norms = None
    if hasattr(attention, "q_norm"):
        norms = Norm.of(attention.q_norm), Norm.of(attention.k_norm)
    # Mistral's window is the configuration's; Qwen's layers know their own, or that there is none.
    window = getattr(attention, "sliding_window", window)
    return Layer(
        attending=Attending(index, attention.scaling, window),
        heads=(qkv.sizes[0] // size, qkv.sizes[1] // size),
        before=Norm.of(layer.input_layernorm),
        qkv=qkv,
        head_norms=norms,
        out=product("self_attn.o_proj"),
        between=Norm.of(layer.post_attention_layernorm),
        gate_up=product("mlp.gate_proj", "mlp.up_proj"),
        down=product("mlp.down_proj"),
    )
