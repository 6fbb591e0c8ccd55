"""The network's linear layers as the engine computes them: fewer, prepacked products.

Every linear layer of a base stands in a LoraLinear that asks `ServedLayers` for its whole output.
Layers that read the same input (query, key and value; gate and up) are one product: the first call
computes all, the others return their part. Weights are packed once for the processor's kernels
(afina.model.kernels), or reordered for torch's where there are none. Positions that decode may go
through the same weights in few bits (afina.serving.small_weights). The low-rank terms of the
batch's adapters are added from their pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.nn import functional

from afina.model import laid_out
from afina.model.kernels.products import OUTS, PackedWeight, packed_weight
from afina.model.lora import LoraLinear
from afina.serving.pages import Pages
from afina.serving.small_weights import Bits, SmallWeight, small_weight

HEAD = "lm_head"
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(eq=False)
class Product:
    """One product and the layers it serves. `names` are full names, in the order of the rows."""

    names: list[str]
    sizes: list[int]
    in_features: int
    weight: torch.Tensor
    bias: torch.Tensor | None
    packed: torch.Tensor | None = None
    kernel: PackedWeight | None = None
    small: SmallWeight | None = None
    """The same in few bits, for positions that were sampled."""
    last_input: torch.Tensor | None = None
    last_output: tuple[torch.Tensor, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return self.in_features * sum(self.sizes) * self.weight.element_size()

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """In and out features by layer."""
        pairs = zip(self.names, self.sizes, strict=True)
        return {name: (self.in_features, size) for name, size in pairs}

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The base's part for input `x` `[..., in]`."""
        if self.kernel is not None:
            found = self.kernel.multiply(x)
            if found.shape[-1] != sum(self.sizes):
                found = found[..., : sum(self.sizes)].contiguous()
            return found if self.bias is None else found.add_(self.bias)
        if self.packed is None:
            return functional.linear(x, self.weight, self.bias)
        return laid_out.product(x, self.packed, self.bias)


@dataclass(frozen=True)
class SampledRows:
    """The rows of a step that were sampled, not prompted: among all positions, and among those that
    the head computes. None: all of them."""

    positions: torch.Tensor | None
    kept: torch.Tensor | None


@dataclass
class ServedLayers:
    """What all LoraLinear layers of one served base refer to."""

    adapters: Pages
    sampled: SampledRows | None = None
    """For products in few bits: this step's rows for them, if there are any."""
    bits: Bits | None = None
    """Those of the layers in few bits; None if all are as trained."""
    all_small: bool = False
    """Whether every layer is in few bits: then one row alone gets the bits it gets in company."""
    products: dict[str, Product] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    size: int = 0
    """Bytes of weights that are nobody else's."""
    gains: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)
    """By product what its output is multiplied by, fp32 `[out]`, and what is added then: a tune
    whose rows have lengths of their own."""

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor | None:
        """Never asked: `linear` gives the whole output."""
        raise NotImplementedError(name, x.shape)

    def linear(self, base: nn.Linear, name: str, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """The whole output of layer `name`."""
        product = self.products[name]
        if product.last_input is not x:
            out = self.product(product, x)
            if len(product.sizes) == 1:
                return out
            product.last_output = torch.split(out, product.sizes, dim=-1)
            product.last_input = x
        return product.last_output[self.places[name]]

    def product(self, product: Product, x: torch.Tensor) -> torch.Tensor:
        """The whole output of a product: the base's part and its adapters'."""
        out = product.compute(x) if product.small is None else self._in_few_bits(product, x)
        self.adapters.add_to(out, product.names[0], x)
        if self.gains and product.names[0] in self.gains:
            factor, offset = self.gains[product.names[0]]
            out.mul_(factor)
            if offset is not None:
                out.add_(offset)
        return out

    def _in_few_bits(self, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Rows that were sampled go through few bits, prompts through the weights as trained: which
        way a row takes depends on itself alone."""
        small, sampled = product.small, self.sampled
        if small is None or sampled is None:
            return product.compute(x)
        rows = sampled.kept if product.names[0] == HEAD else sampled.positions
        if rows is None:
            return small.compute(x)
        out = product.compute(x)
        if not len(rows):
            return out
        picked = x.view(-1, product.in_features).index_select(0, rows)
        out.view(-1, out.shape[-1]).index_copy_(0, rows, small.compute(picked))
        return out

    def gain(self, factors: Mapping[str, torch.Tensor]) -> None:
        """Multiplies the outputs of layers, without their bias, by fp32 `[out]` from now on."""
        for product in {id(p): p for p in self.products.values()}.values():
            if not any(name in factors for name in product.names):
                continue
            parts = [
                factors.get(name, torch.ones(size))
                for name, size in zip(product.names, product.sizes, strict=True)
            ]
            factor = torch.cat(parts)
            offset = None if product.bias is None else product.bias * (1 - factor)
            self.gains[product.names[0]] = factor, offset

    def forget_step(self) -> None:
        """Lets go of the last step's tensors."""
        for product in self.products.values():
            product.last_input = None
            product.last_output = ()


@dataclass(frozen=True)
class Sharing:
    """A network that is another but for some parameters."""

    of: ServedLayers
    changed: frozenset[int]
    """The identities of the parameters that are its own."""

    def product(self, names: list[str], linears: list[nn.Linear]) -> Product | None:
        """The other network's product, if this one's has the same weights."""
        theirs = self.of.products[names[0]]
        own = any(id(p) in self.changed for m in linears for p in m.parameters())
        if own or theirs.names != names:
            return None
        for linear in linears:
            _hollow(linear)
        return replace(theirs, last_input=None, last_output=())


def serve_layers(
    model: nn.Module,
    adapters: Pages,
    sharing: Sharing | None = None,
    bits: Bits | None = None,
) -> ServedLayers:
    """Puts the engine's layers in the place of all linear ones of `model`; with `bits`, weights
    that are not shared are kept in few bits too."""
    served = ServedLayers(adapters)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for names in _products(linears):
        members = [linears[name] for name in names]
        shared = None if sharing is None else sharing.product(names, members)
        product = shared or _product(names, members, bits)
        if shared is None:
            served.size += product.size
        adapters.know(names, product.in_features, product.sizes)
        for place, name in enumerate(names):
            served.products[name] = product
            served.places[name] = place
    for name, linear in linears.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, LoraLinear(linear, name, served))
    small = [product.small for product in served.products.values()]
    served.bits = min((weight.bits for weight in small if weight), default=None)
    served.all_small = None not in small
    return served


def _products(linears: dict[str, nn.Linear]) -> list[list[str]]:
    groups: list[list[str]] = []
    taken: set[str] = set()
    for name, linear in linears.items():
        if name in taken:
            continue
        parent, _, last = name.rpartition(".")
        together = next((t for t in _TOGETHER if t[0] == last), (last,))
        names = [f"{parent}.{other}" if parent else other for other in together]
        alike = all(
            n in linears
            and linears[n].in_features == linear.in_features
            and (linears[n].bias is None) == (linear.bias is None)
            for n in names
        )
        if not alike:
            names = [name]
        taken.update(names)
        groups.append(names)
    # A member seen before its first layer must not be computed twice.
    return [g for g in groups if len(g) > 1 or not any(g[0] in o for o in groups if len(o) > 1)]


def _product(names: list[str], linears: list[nn.Linear], bits: Bits | None) -> Product:
    first = linears[0]
    weight = first.weight.data
    bias = None if first.bias is None else first.bias.data
    if len(linears) > 1:
        weight = torch.cat([linear.weight.data for linear in linears])
        bias = None if bias is None else torch.cat([linear.bias.data for linear in linears])
    product = Product(names, [m.out_features for m in linears], first.in_features, weight, bias)
    if bits is not None:
        product.small = small_weight(weight, bias, 8 if names[0] == HEAD else bits)
    product.kernel = packed_weight(functional.pad(weight, (0, 0, 0, -len(weight) % OUTS)))
    if product.kernel is None:
        product.packed = laid_out.laid_out(weight)
    is_copied = product.kernel is not None or product.packed is not None
    if is_copied:
        product.weight = weight.new_zeros(1, 1).expand_as(weight)
    if is_copied or len(linears) > 1:
        for linear in linears:
            _hollow(linear)
    return product


def _hollow(linear: nn.Linear) -> None:
    """Shape and dtype stay, the memory goes: the product has its own copy."""
    hollow = linear.weight.new_zeros(1, 1).expand_as(linear.weight)
    linear.weight = nn.Parameter(hollow, requires_grad=False)
