"""The trainable LoRA matrices of a run, in a few flat tensors.

fp32 masters, their copy in the precision that the network computes in, and fp32 gradients lie in
flat tensors with a view for each matrix: the optimiser, clipping and checkpoints are one operation
each. The layer's forward and backward are written by hand, so that `x Aᵀ` is computed once and
gradients go straight into the flat tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from afina.domain.mixing import mixed_key
from afina.domain.runs import LoraSpec
from afina.model.four_bits import FourBitLinear
from afina.model.products import JointProduct, LoraViews, layers_together


class TrainedAdapter:
    """The low-rank terms of all layers that a run tunes; what `LoraLinear` asks for its output."""

    def __init__(
        self, layers: Mapping[str, nn.Linear], spec: LoraSpec, dtype: torch.dtype, seed: int
    ) -> None:
        self.spec = spec
        self.scaling = spec.scaling
        self.names = sorted(layers)
        self.shapes = {n: (layers[n].in_features, layers[n].out_features) for n in self.names}
        size = sum(spec.rank * (fan_in + fan_out) for fan_in, fan_out in self.shapes.values())
        size += self._further()
        self.masters = torch.zeros(size)
        self.grads = torch.zeros(size)
        self.compute = torch.zeros(size, dtype=dtype)
        late = any(isinstance(linear, FourBitLinear) for linear in layers.values())
        # a weight that is made when a product needs it can lie below no other one
        self._together = [(name,) for name in self.names] if late else self._groups(layers)
        self._places = self._make_places()
        self.views = {name: self._view(name) for name in self.names}
        self._products: dict[str, tuple[JointProduct, int]] = {}
        for group in () if late else self._together:
            product = self._join(group, layers)
            self._products |= {name: (product, place) for place, name in enumerate(group)}
        self.dropout_generator: torch.Generator | None = None
        """Set while a bin is trained with dropout; None in evaluation."""
        # makes autograd call the layers' backward although no input of theirs needs a gradient
        self.anchor = torch.zeros(1, dtype=dtype, requires_grad=True)
        self._initialise(seed)

    def _groups(self, layers: Mapping[str, nn.Linear]) -> list[tuple[str, ...]]:
        """The names of layers by what is one product."""
        return layers_together(layers)

    def _further(self) -> int:
        """How many numbers are learned beside the matrices; they stand behind them."""
        return 0

    def _make_places(self) -> dict[str, tuple[int, int]]:
        """Where each layer's A and B begin: the A of one product in a row, then its B."""
        places: dict[str, tuple[int, int]] = {}
        start = 0
        for group in self._together:
            after = start + sum(self._sizes(name)[0] for name in group)
            for name in group:
                size_a, size_b = self._sizes(name)
                places[name] = (start, after)
                start, after = start + size_a, after + size_b
            start = after
        return places

    def _sizes(self, name: str) -> tuple[int, int]:
        fan_in, fan_out = self.shapes[name]
        return self.spec.rank * fan_in, self.spec.rank * fan_out

    def pair_in(self, flat: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's A and B in a flat tensor."""
        (at_a, at_b), (size_a, size_b) = self._places[name], self._sizes(name)
        rank = self.spec.rank
        return flat[at_a : at_a + size_a].view(rank, -1), flat[at_b : at_b + size_b].view(-1, rank)

    def _view(self, name: str) -> LoraViews:
        return LoraViews(*self.pair_in(self.compute, name), *self.pair_in(self.grads, name))

    def _join(self, group: tuple[str, ...], layers: Mapping[str, nn.Linear]) -> JointProduct:
        start = self._places[group[0]][0]
        end = start + sum(self._sizes(name)[0] for name in group)
        fan_in = self.shapes[group[0]][0]
        joint_a = tuple(flat[start:end].view(-1, fan_in) for flat in (self.compute, self.grads))
        views = [self.views[name] for name in group]
        return JointProduct(
            [layers[name] for name in group], views, (joint_a[0], joint_a[1]), self.scaling
        )

    def _initialise(self, seed: int) -> None:
        """A as PEFT does (Kaiming uniform with slope √5), B zero."""
        for index, name in enumerate(self.names):
            fan_in, _ = self.shapes[name]
            generator = torch.Generator().manual_seed(mixed_key(seed, 1, index))
            bound = 1 / math.sqrt(fan_in)
            a, _ = self.master_views(name)
            a.uniform_(-bound, bound, generator=generator)
        self.refresh()

    def master_views(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The fp32 A and B of a layer; writing to them changes the masters."""
        return self.pair_in(self.masters, name)

    def refresh(self) -> None:
        """Copies the masters into the precision that the network computes in."""
        self.compute.copy_(self.masters)
        self._refresh_products()

    def _refresh_products(self) -> None:
        for product, place in self._products.values():
            if place == 0:
                product.refresh()

    def publish(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A and B of each layer in bf16, as they are published."""
        found = {}
        for name in self.names:
            a, b = self.master_views(name)
            found[name] = (a.to(torch.bfloat16), b.to(torch.bfloat16))
        return found

    def load_published(self, weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Computes with published weights from now on; the masters stay as they are."""
        for name in self.names:
            self.views[name].a.copy_(weights[name][0])
            self.views[name].b.copy_(weights[name][1])
        self._refresh_products()

    def start_from(self, weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Goes on from published weights. Raises ValueError if they are of other layers."""
        if sorted(weights) != self.names:
            raise ValueError("the weights to go on from are of other layers")
        for name in self.names:
            for master, side in zip(self.master_views(name), weights[name], strict=True):
                master.copy_(side)
        self.refresh()

    def product(self, name: str) -> JointProduct | None:
        """The product that a layer is part of, if it is part of one."""
        return self._products[name][0] if name in self._products else None

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The low-rank term alone, without gradients for the matrices."""
        view = self.views[name]
        return functional.linear(functional.linear(x, view.a), view.b) * self.scaling

    def linear(self, base: nn.Linear, name: str, x: torch.Tensor) -> torch.Tensor:
        """The whole layer: base product and low-rank term."""
        mask = self._mask(x)
        if mask is None and name in self._products:
            product, place = self._products[name]
            return product.output(place, x, self.anchor)
        out: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            x, self.anchor, base, self.views[name], self, mask
        )
        return out

    def _mask(self, x: torch.Tensor) -> torch.Tensor | None:
        """What dropout leaves of a layer's input, and by how much it grows."""
        if self.dropout_generator is None or self.spec.dropout == 0:
            return None
        keep = 1 - self.spec.dropout
        mask = torch.empty_like(x).bernoulli_(keep, generator=self.dropout_generator)
        return mask.div_(keep)


class _LoraProduct(torch.autograd.Function):
    """x Wᵀ + bias + scaling (mask ∘ x) Aᵀ Bᵀ, gradients of A and B added to their places: a layer
    with dropout, which draws a mask of its own, or one whose weight is made when it is needed."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        base: nn.Linear,
        views: LoraViews,
        adapter: TrainedAdapter,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        seen = flat if mask is None else flat * mask.view_as(flat)
        low = torch.mm(seen, views.a.t())
        out = functional.linear(flat, base.weight, base.bias)
        out.addmm_(low, views.b.t(), alpha=adapter.scaling)
        ctx.save_for_backward(seen, low, mask)
        ctx.base, ctx.views, ctx.scaling = base, views, adapter.scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, low, mask = ctx.saved_tensors
        views: LoraViews = ctx.views
        out_grad = grads[0]
        flat = out_grad.reshape(-1, out_grad.shape[-1])
        low_grad = torch.mm(flat, views.b).mul_(ctx.scaling)
        views.grad_b.add_(torch.mm(flat.t(), low), alpha=ctx.scaling)
        views.grad_a.add_(torch.mm(low_grad.t(), seen))
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.mm(flat, ctx.base.weight)
            if mask is None:
                x_grad.addmm_(low_grad, views.a)
            else:
                x_grad.addcmul_(torch.mm(low_grad, views.a), mask.view_as(seen))
            x_grad = x_grad.view(*out_grad.shape[:-1], -1)
        return x_grad, None, None, None, None, None
