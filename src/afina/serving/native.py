"""Plain decoders through kernels of our own: a whole step is one call (`afina.model.kernels.step`).

It takes over what a `Decoder` has found out about its network. Rows are positions without padding;
what they attend to is read where it lies in the cache, and adapters where they lie in their pages.
A position has the same bits in any company and chunks, sampled or prompted; so there are no groups
here, no kept rows, no rounded sizes. A network that the kernels do not take runs as before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from afina.model.kernels.library import library
from afina.model.kernels.products import OUTS
from afina.model.kernels.step import PLACES, RANKS, Layer, Linear, Network, address, run_step
from afina.serving.cache import KvCache
from afina.serving.decoder import Decoder, Norm
from afina.serving.decoder import Layer as DecoderLayer
from afina.serving.layers import Product, ServedLayers
from afina.serving.layout import Row
from afina.serving.native_rows import Rooms, StepRows
from afina.serving.small_weights import SmallWeight

_STATIC: Final = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary positions whose angles depend on nothing but the position."""
_BF16: Final = torch.bfloat16


@dataclass
class _Turns:
    """Cosines and sines of all positions, computed once."""

    cos: torch.Tensor
    sin: torch.Tensor

    @staticmethod
    def of(rotary: Any, positions: int) -> _Turns:
        like = torch.zeros(1, dtype=_BF16)
        cos, sin = rotary(like, torch.arange(positions).unsqueeze(0))
        return _Turns(cos[0].contiguous(), sin[0].contiguous())


class NativeDecoder:
    """A network whose steps are one call each. Raises LookupError if the kernels do not take it."""

    def __init__(self, decoder: Decoder, served: ServedLayers, cache: KvCache) -> None:
        layers = decoder.layers
        if library() is None or cache.block_tokens != PLACES or not layers:
            raise LookupError("no kernels")
        self._decoder, self._served, self._cache = decoder, served, cache
        self._held: list[Any] = []
        """What the structs point to."""
        first = layers[0]
        self._heads, self._kv_heads = first.heads
        self._size = first.qkv.sizes[1] // self._kv_heads
        self._width, self._wide = first.qkv.in_features, first.down.in_features
        self._vocabulary = sum(decoder.head.sizes)
        self._rotary = decoder.rotary
        self._check(layers)
        self._turns = _Turns.of(self._rotary, 1024)
        self._linears: list[tuple[Linear, Product]] = []
        self._pages_seen = -1
        self._gains_seen = 0
        self._layers = (Layer * len(layers))(*(self._layer(layer) for layer in layers))
        self._padded = -(-self._vocabulary // OUTS) * OUTS
        self._head = self._linear(decoder.head, self._width, self._padded)
        self._find_linears()
        self._network = self._told(decoder)
        self._rooms = Rooms(self._width, self._wide, (self._heads, self._kv_heads), self._size)

    def __call__(self, rows: Sequence[Row], kept: Sequence[int]) -> torch.Tensor:
        """Logits `[len(kept), V]` of some of a step's positions, bf16."""
        step_rows = StepRows(rows, kept, self._served.adapters, few_bits=bool(self._served.bits))
        step_rows.check(self._vocabulary, self._cache.padding + 1)
        self._refresh(step_rows.longest)
        logits = torch.empty(len(kept), self._padded, dtype=_BF16)
        step = step_rows.step
        self._rooms.fill(step, step_rows, len(self._layers), torch.get_num_threads())
        step.cos, step.sin = self._turns.cos.data_ptr(), self._turns.sin.data_ptr()
        step.logits = logits.data_ptr()
        run_step(self._network, step)
        return logits[:, : self._vocabulary]

    # -- what the structs say ------------------------------------------------------------------

    def _check(self, layers: Sequence[DecoderLayer]) -> None:
        ratio = self._heads / self._kv_heads
        fits = (
            self._size % 16 == 0
            and self._width % OUTS == self._wide % OUTS == 0
            and sum(layers[0].qkv.sizes) % OUTS == 0
            and ratio == int(ratio)
            and getattr(self._rotary, "rope_type", "") in _STATIC
            and self._decoder.embedding.dtype == _BF16
            and self._decoder.embedding.shape[0] == self._vocabulary
        )
        head = self._decoder.head
        fits = fits and (head.bias is None or self._vocabulary % OUTS == 0)
        for layer in layers:
            products = (layer.qkv, layer.out, layer.gate_up, layer.down)
            fits = fits and all(p.kernel is not None for p in products)
            fits = fits and layer.heads == layers[0].heads
            fits = fits and layer.attending.scaling == layers[0].attending.scaling
            fits = fits and layer.attending.softcap is None
            fits = fits and all(size % 16 == 0 for p in products for size in p.sizes)
        if not fits or head.kernel is None:
            raise LookupError("a shape that the kernels do not take")

    def _layer(self, layer: DecoderLayer) -> Layer:
        size, kv_heads = self._size, self._kv_heads
        like = torch.empty(1, kv_heads, size, dtype=_BF16)
        keys, values = self._cache.layer(layer.attending.layer, like, like)
        shape = (self._cache.padding + 1, PLACES, kv_heads, size)
        q_norm, k_norm = layer.head_norms or (None, None)
        both = (self._heads + 2 * kv_heads) * size
        return Layer(
            qkv=self._linear(layer.qkv, self._width, both),
            out=self._linear(layer.out, self._heads * size, self._width),
            gate_up=self._linear(layer.gate_up, self._width, 2 * self._wide),
            down=self._linear(layer.down, self._wide, self._width),
            before=self._norm(layer.before, self._width),
            between=self._norm(layer.between, self._width),
            q_norm=None if q_norm is None else self._norm(q_norm, size),
            k_norm=None if k_norm is None else self._norm(k_norm, size),
            keys=address(keys, _BF16, *shape),
            values=address(values, _BF16, *shape),
            window=layer.attending.window or 0,
        )

    def _linear(self, product: Product, ins: int, outs: int) -> Linear:
        kernel = product.kernel
        if kernel is None or kernel.blocks.dtype != _BF16:
            raise LookupError("a weight that is not packed")
        part_of = [p for p, size in enumerate(product.sizes) for _ in range(-(-size // 16))]
        parts = torch.tensor(part_of + part_of[-1:] * (outs // 16 - len(part_of)))
        self._held += [kernel, product.bias, parts]
        found = Linear(
            weight=address(kernel.blocks, _BF16, outs // 32, ins // 2, 32, 2),
            bias=None if product.bias is None else address(product.bias, _BF16, outs),
            part_of=address(parts, torch.int64, outs // 16),
            ins=ins,
            outs=outs,
            parts=len(product.sizes),
        )
        if product.small is not None:
            self._tell_of_few_bits(found, product.small)
        return found

    def _tell_of_few_bits(self, linear: Linear, small: SmallWeight) -> None:
        blocks = small.blocks
        self._held.append(blocks)
        ins, outs = linear.ins, linear.outs
        words = ins // 4 if small.bits == 4 else ins // 2
        linear.codes = address(blocks.codes, torch.int16, outs // 32, words, 16, 2)
        if small.bits == 4:
            linear.scales = address(blocks.scales, torch.float16, outs // 32, ins // 32, 2, 32)
        else:
            linear.scales = address(blocks.scales, torch.float32, outs)
        linear.bits = small.bits

    def _norm(self, norm: Norm, size: int) -> int:
        self._held.append(norm.weight)
        return address(norm.weight, _BF16, size)

    def _told(self, decoder: Decoder) -> Network:
        first = decoder.layers[0]
        head_norm = first.head_norms[0] if first.head_norms else first.before
        return Network(
            layers=self._layers,
            count=len(self._layers),
            embedding=address(decoder.embedding, _BF16, self._vocabulary, self._width),
            last=self._norm(decoder.last, self._width),
            head=ctypes.pointer(self._head),
            width=self._width,
            wide=self._wide,
            heads=self._heads,
            kv_heads=self._kv_heads,
            size=self._size,
            scaling=first.attending.scaling,
            eps=first.before.eps,
            head_eps=head_norm.eps,
        )

    def _find_linears(self) -> None:
        """All structs of products that may change, with their products."""
        for struct, layer in zip(self._layers, self._decoder.layers, strict=True):
            for name in ("qkv", "out", "gate_up", "down"):
                self._linears.append((getattr(struct, name), getattr(layer, name)))
        self._linears.append((self._head, self._decoder.head))

    def _refresh(self, longest: int) -> None:
        """Takes over what changed since the last step: pages, gains, the longest position."""
        pages, gains = self._served.adapters, self._served.gains
        if pages.version != self._pages_seen:
            self._pages_seen = pages.version
            for linear, product in self._linears:
                self._tell_of_adapters(linear, pages.tables_of(product.names[0]))
        if len(gains) != self._gains_seen:
            self._gains_seen = len(gains)
            for linear, product in self._linears:
                if product.names[0] in gains:
                    self._gain(linear, *gains[product.names[0]])
        if longest >= len(self._turns.cos):
            self._turns = _Turns.of(self._rotary, 2 * longest)

    @staticmethod
    def _tell_of_adapters(linear: Linear, tables: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        if tables is None:
            linear.a = linear.b = None
            return
        a, b = tables
        linear.a = address(a[0], _BF16, linear.parts, linear.ins // 2, RANKS, 2)
        linear.b = address(b[0], _BF16, linear.outs // 16, RANKS // 2, 16, 2)
        linear.a_apart, linear.b_apart = a.stride(0), b.stride(0)

    def _gain(self, linear: Linear, factor: torch.Tensor, offset: torch.Tensor | None) -> None:
        offset = torch.zeros_like(factor) if offset is None else offset
        beyond = (0, linear.outs - len(factor))
        factor, offset = (functional.pad(t.float(), beyond) for t in (factor, offset))
        self._held += [factor, offset]
        linear.factor = address(factor, torch.float32, linear.outs)
        linear.offset = address(offset, torch.float32, linear.outs)
