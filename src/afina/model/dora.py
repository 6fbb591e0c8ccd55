"""DoRA: low-rank adapters whose layers also learn the length of each output row.

A layer computes, after Liu et al. 2024 (arXiv 2402.09353, equations 5 and 11),

    y = g ∘ (x Wᵀ + s x Aᵀ Bᵀ) + bias,   g = m / ‖W + s B A‖ by row,

with the length m learned beside A and B, and the norm taken as a constant in the backward pass, as
the paper and PEFT do. Lengths are kept, published and applied in fp32: in bf16 a change of less
than one part in 256 would be lost. With dropout, W x stays whole and what is learned sees x with
its mask, as in PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from afina.domain.runs import LoraSpec
from afina.model.kernels.calls import usable
from afina.model.kernels.linear import Low, Matrix, linear
from afina.model.products import LoraViews
from afina.model.trained import TrainedAdapter

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
Magnitudes = Mapping[str, torch.Tensor]
_ROWS: Final = 1024
"""Rows of a weight whose norms are taken at once: fp32 copies of no more."""


def row_norms(
    weight: torch.Tensor, pair: tuple[torch.Tensor, torch.Tensor], scaling: float
) -> torch.Tensor:
    """‖W + s B A‖ of each row, fp32 `[out]`."""
    a = pair[0].float()
    found = []
    for start in range(0, len(weight), _ROWS):
        rows = slice(start, start + _ROWS)
        found.append(_moved(weight[rows], a, pair[1][rows], scaling).norm(dim=1))
    return torch.cat(found)


def merged_weight(
    weight: torch.Tensor,
    pair: tuple[torch.Tensor, torch.Tensor],
    magnitude: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """m ∘ (W + s B A) / ‖W + s B A‖ by row, in fp32."""
    moved = _moved(weight, pair[0].float(), pair[1], scaling)
    return moved.mul_((magnitude.float() / moved.norm(dim=1))[:, None])


def _moved(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    return torch.addmm(weight.float(), b.float(), a, alpha=scaling)


class DoraAdapter(TrainedAdapter):
    """The matrices and lengths of all layers that a run tunes. The lengths stand behind the
    matrices in the flat tensors."""

    def __init__(
        self, layers: Mapping[str, nn.Linear], spec: LoraSpec, dtype: torch.dtype, seed: int
    ) -> None:
        self._linears = dict(layers)
        self._lengths: dict[str, torch.Tensor] = {}
        """Those that are computed with."""
        self.gains: dict[str, torch.Tensor] = {}
        """g of each layer, fp32 `[out]`."""
        self.norms: dict[str, torch.Tensor] = {}
        self.with_lengths: set[str] = set()
        """Layers none of whose rows has the length 0: their product is known from their output."""
        super().__init__(layers, spec, dtype, seed)

    def _groups(self, layers: Mapping[str, nn.Linear]) -> list[tuple[str, ...]]:
        return [(name,) for name in sorted(layers)]

    def _further(self) -> int:
        return sum(fan_out for _, fan_out in self.shapes.values())

    @cached_property
    def _lengths_at(self) -> dict[str, slice]:
        """Where each layer's lengths stand in a flat tensor."""
        found: dict[str, slice] = {}
        start = len(self.masters) - self._further()
        for name in self.names:
            found[name] = slice(start, start + self.shapes[name][1])
            start = found[name].stop
        return found

    def lengths_in(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        """A layer's lengths in a flat tensor."""
        return flat[self._lengths_at[name]]

    def _initialise(self, seed: int) -> None:
        for name in self.names:
            pair = self.master_views(name)
            norms = row_norms(self._linears[name].weight, pair, 0.0)
            self.lengths_in(self.masters, name).copy_(norms)
        super()._initialise(seed)

    def refresh(self) -> None:
        """See TrainedAdapter."""
        super().refresh()
        self._lengths = {name: self.lengths_in(self.masters, name) for name in self.names}
        self._measure()

    def _measure(self) -> None:
        for name in self.names:
            view = self.views[name]
            norms = row_norms(self._linears[name].weight, (view.a, view.b), self.scaling)
            self.norms[name], self.gains[name] = norms, self._lengths[name] / norms
        self.with_lengths = {name for name in self.names if bool(self.gains[name].all())}

    def product(self, name: str) -> None:
        """None: a layer is more than a product here."""

    def magnitudes(self) -> dict[str, torch.Tensor]:
        """The lengths of each layer, as they are published."""
        return {name: self.lengths_in(self.masters, name).clone() for name in self.names}

    def load_tune(self, pairs: Pairs, magnitudes: Magnitudes) -> None:
        """Computes with a published tune from now on; the masters stay as they are."""
        self.load_published(pairs)
        self._lengths = {name: magnitudes[name].float() for name in self.names}
        self._measure()

    def start_from_tune(self, pairs: Pairs, magnitudes: Magnitudes) -> None:
        """Goes on from a published tune. Raises ValueError if it is of other layers."""
        for name in self.names:
            if name in magnitudes:
                self.lengths_in(self.masters, name).copy_(magnitudes[name])
        self.start_from(pairs)

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """What the layer adds to its base's output, without gradients for what is learned."""
        low_rank = super().delta(name, x)
        base = functional.linear(x, self._linears[name].weight)
        return ((base + low_rank) * self.gains[name] - base).to(x.dtype)

    def linear(self, base: nn.Linear, name: str, x: torch.Tensor) -> torch.Tensor:
        """The whole layer."""
        mask = self._mask(x)
        out: torch.Tensor = _DoraProduct.apply(  # type: ignore[no-untyped-call]
            x, self.anchor, base, name, self, mask
        )
        return out


def _has_kernel(weight: torch.Tensor, view: LoraViews) -> bool:
    odd = any(size % 2 for size in (*weight.shape, view.a.shape[0]))
    return not odd and usable(weight) and usable(view.b) and weight.stride(1) == 1


def _at_once(
    x: torch.Tensor,
    weight: torch.Tensor,
    low: torch.Tensor,
    view: LoraViews,
    scaling: float,
    gain: torch.Tensor,
) -> torch.Tensor:
    """g ∘ (x Wᵀ + s low Bᵀ), rounded once, as the engine rounds it."""
    out = x.new_empty(x.shape[0], weight.shape[0])
    linear(x, Matrix(weight), out, low=Low(low, Matrix(view.b), scaling), gain=gain)
    return out


class _DoraProduct(torch.autograd.Function):
    """One layer; gradients of A, B and m are added to their places."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        base: nn.Linear,
        name: str,
        adapter: DoraAdapter,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        view, gain = adapter.views[name], adapter.gains[name]
        seen = flat if mask is None else flat * mask.view_as(flat)
        low = torch.mm(seen, view.a.t())
        if mask is None and name in adapter.with_lengths and _has_kernel(base.weight, view):
            # g times what it should be: its gradient is divided by that in fp32
            out = high = _at_once(flat.contiguous(), base.weight, low, view, adapter.scaling, gain)
            ctx.by_gain = True
        else:
            ctx.by_gain = False
            high = functional.linear(seen, base.weight)
            tail = None if mask is None else functional.linear(flat, base.weight).sub_(high)
            high.addmm_(low, view.b.t(), alpha=adapter.scaling)
            out = high.clone().mul_(gain)
            if tail is not None:
                out.add_(tail)
        if base.bias is not None:
            out = out + base.bias
        ctx.save_for_backward(seen, low, high, mask)
        ctx.base, ctx.name, ctx.adapter = base, name, adapter
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, low, high, mask = ctx.saved_tensors
        adapter: DoraAdapter = ctx.adapter
        name: str = ctx.name
        view, scaling = adapter.views[name], adapter.scaling
        out_grad = grads[0]
        flat = out_grad.reshape(-1, out_grad.shape[-1])
        of_gain = (flat * high).sum(0, dtype=torch.float32)
        if ctx.by_gain:
            of_gain.div_(adapter.gains[name])
        adapter.lengths_in(adapter.grads, name).add_(of_gain.div_(adapter.norms[name]))
        scaled = flat.clone().mul_(adapter.gains[name])
        low_grad = torch.mm(scaled, view.b).mul_(scaling)
        view.grad_b.add_(torch.mm(scaled.t(), low), alpha=scaling)
        view.grad_a.add_(torch.mm(low_grad.t(), seen))
        x_grad = None
        if ctx.needs_input_grad[0]:
            weight = ctx.base.weight
            if mask is None:
                x_grad = torch.mm(scaled, weight).addmm_(low_grad, view.a)
            else:
                masked = torch.mm(scaled.sub_(flat), weight).addmm_(low_grad, view.a)
                x_grad = torch.mm(flat, weight).add_(masked.mul_(mask.view_as(seen)))
            x_grad = x_grad.view(*out_grad.shape[:-1], -1)
        return x_grad, None, None, None, None, None
