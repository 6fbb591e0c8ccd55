"""Frozen linear layers with their low-rank terms, as few products as can be.

Layers that read the same input (query, key and value; gate and up) are one product forward and one
back: their weights lie one below the other, their A too, and their B make a block diagonal. The
first layer that is called computes all, the others return their part. Forward and backward are
written by hand: x Aᵀ is computed once, and gradients go straight into the adapter's flat tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from afina.model.laid_out import laid_out, product
from afina.model.own_products import OwnProduct, own_product

_TOGETHER: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True)
class LoraViews:
    """One layer's matrices: A `[rank, in]` and B `[out, rank]`, and where their gradients go."""

    a: torch.Tensor
    b: torch.Tensor
    grad_a: torch.Tensor
    grad_b: torch.Tensor


def layers_together(layers: Mapping[str, nn.Linear]) -> list[tuple[str, ...]]:
    """The names of `layers` by what is one product. Only layers alike in input and bias are."""
    groups: list[tuple[str, ...]] = []
    taken: set[str] = set()
    for name in sorted(layers):
        if name in taken:
            continue
        parent, dot, last = name.rpartition(".")
        together = next((t for t in _TOGETHER if last in t), (last,))
        names = tuple(f"{parent}{dot}{other}" for other in together)
        if not all(n in layers and _alike(layers[n], layers[name]) for n in names):
            names = (name,)
        taken.update(names)
        groups.append(names)
    return groups


def _alike(one: nn.Linear, two: nn.Linear) -> bool:
    return one.in_features == two.in_features and (one.bias is None) == (two.bias is None)


class JointProduct:
    """The layers of one product. `views` are theirs in order, `a` and `grad_a` all of their A."""

    def __init__(
        self,
        linears: Sequence[nn.Linear],
        views: Sequence[LoraViews],
        joint_a: tuple[torch.Tensor, torch.Tensor],
        scaling: float,
    ) -> None:
        self.views = tuple(views)
        self.a, self.grad_a = joint_a
        self.scaling = scaling
        self.sizes = [linear.out_features for linear in linears]
        self.weight, self.bias = _joined(linears)
        self.b = views[0].b
        if len(views) > 1:
            self.b = self.a.new_zeros(sum(self.sizes), self.a.shape[0])
        self._packed: torch.Tensor | None = None
        self._input: torch.Tensor | None = None
        self._outputs: tuple[torch.Tensor, ...] = ()

    def refresh(self) -> None:
        """Takes over the B of its layers, after they changed."""
        if len(self.views) > 1:
            for view, (rows, columns) in zip(self.views, self.blocks, strict=True):
                self.b[rows, columns] = view.b

    @cached_property
    def own(self) -> OwnProduct | None:
        """The same by kernels of our own, where they compute it."""
        parts = [(view.b, view.grad_b) for view in self.views]
        joint_a = (self.a, self.grad_a)
        frozen = (self.weight, self.bias)
        return own_product(frozen, joint_a, self.b, parts, self.scaling)

    @cached_property
    def blocks(self) -> list[tuple[slice, slice]]:
        """Where each layer's B stands in the block diagonal."""
        found = []
        row = column = 0
        for view in self.views:
            size, rank = view.b.shape
            found.append((slice(row, row + size), slice(column, column + rank)))
            row, column = row + size, column + rank
        return found

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """The base's part, x Wᵀ + bias. In bf16 the weight is laid out for the processor once; the
        bits stay the same."""
        if self._packed is None and x.dtype == torch.bfloat16:
            self._packed = laid_out(self.weight)
        if self._packed is None:
            return functional.linear(x, self.weight, self.bias)
        return product(x, self._packed, self.bias)

    def forward(
        self, x: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For flat `x` `[T, in]` all layers' outputs side by side, with `beside` added to them, and
        x Aᵀ."""
        if self.own is not None:
            return self.own.forward(x.contiguous(), beside)
        low = torch.mm(x, self.a.t())
        out = self.frozen(x)
        out.addmm_(low, self.b.t(), alpha=self.scaling)
        return (out if beside is None else out.add_(beside)), low

    def backward(
        self,
        grad: torch.Tensor,
        x: torch.Tensor,
        low: torch.Tensor,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The gradient of x, into `out` if there is one; those of A and B go to their places."""
        if self.own is not None and out is None:
            grad = grad.contiguous()
            low_grad, x_grad = self.own.backward(grad)
            self.own.add_gradients(grad, low_grad, x.contiguous(), low)
            return x_grad
        low_grad = self.backward_low(grad, x, low)
        x_grad = (
            torch.mm(grad, self.weight) if out is None else torch.mm(grad, self.weight, out=out)
        )
        return x_grad.addmm_(low_grad, self.a)

    def backward_low(self, grad: torch.Tensor, x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Adds the gradients of A and B to their places; returns that of x Aᵀ."""
        if self.own is not None:
            grad = grad.contiguous()
            low_grad, _ = self.own.backward(grad, wanted=False)
            self.own.add_gradients(grad, low_grad, x.contiguous(), low)
            return low_grad
        low_grad = torch.mm(grad, self.b).mul_(self.scaling)
        self.grad_a.add_(torch.mm(low_grad.t(), x))
        if len(self.views) == 1:
            self.views[0].grad_b.add_(torch.mm(grad.t(), low), alpha=self.scaling)
            return low_grad
        of_b = torch.mm(low.t(), grad)
        for view, (rows, columns) in zip(self.views, self.blocks, strict=True):
            view.grad_b.add_(of_b[columns, rows].t(), alpha=self.scaling)
        return low_grad

    def output(self, place: int, x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        """What layer number `place` returns for `x`."""
        if len(self.views) == 1:
            return _run(x, anchor, self)[0]
        if self._input is not x or place == 0:
            self._outputs = _run(x, anchor, self)
            self._input = x
        out = self._outputs[place]
        if place == len(self.views) - 1:
            self._input, self._outputs = None, ()
        return out


def _joined(linears: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The layers' weights one below the other; the layers keep views of them."""
    if len(linears) == 1:
        return linears[0].weight.data, None if linears[0].bias is None else linears[0].bias.data
    weight = torch.cat([linear.weight.data for linear in linears])
    sizes = [linear.out_features for linear in linears]
    for linear, part in zip(linears, torch.split(weight, sizes), strict=True):
        linear.weight.data = part
    biases = [linear.bias.data for linear in linears if linear.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _run(x: torch.Tensor, anchor: torch.Tensor, product: JointProduct) -> tuple[torch.Tensor, ...]:
    found: tuple[torch.Tensor, ...] = _Joint.apply(  # type: ignore[no-untyped-call]
        x, anchor, product
    )
    return found


class _Joint(torch.autograd.Function):
    """x Wᵀ + bias + scaling x Aᵀ Bᵀ, cut into the layers' parts."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004
        product: JointProduct,
    ) -> tuple[torch.Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        out, low = product.forward(flat)
        ctx.save_for_backward(flat, low)
        ctx.product = product
        ctx.set_materialize_grads(False)
        parts = torch.split(out.view(*x.shape[:-1], -1), product.sizes, -1)
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, low = ctx.saved_tensors
        product: JointProduct = ctx.product
        shape = next((grad.shape[:-1] for grad in grads if grad is not None), None)
        if shape is None:
            return None, None, None
        flat = _one(grads, product.sizes, x)
        if not ctx.needs_input_grad[0]:
            product.backward_low(flat, x, low)
            return None, None, None
        return product.backward(flat, x, low).view(*shape, -1), None, None


def _one(
    grads: Sequence[torch.Tensor | None], sizes: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    """The layers' gradients side by side, `[T, out]`; those of layers without one are 0."""
    given = [grad for grad in grads if grad is not None]
    if len(given) == len(grads) and _side_by_side(given):
        return given[0].as_strided((len(like), sum(sizes)), (sum(sizes), 1))
    parts = [
        like.new_zeros(len(like), size) if grad is None else grad.reshape(-1, size)
        for grad, size in zip(grads, sizes, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _side_by_side(grads: Sequence[torch.Tensor]) -> bool:
    """Whether they are the columns of one tensor already."""
    width = sum(grad.shape[-1] for grad in grads)
    place = grads[0].data_ptr()
    for grad in grads:
        flat = grad.dim() >= 2 and grad.numel() == grad.shape[-2] * grad.shape[-1]
        if not flat or grad.stride()[-2:] != (width, 1) or grad.data_ptr() != place:
            return False
        place += grad.shape[-1] * grad.element_size()
    return len(grads) > 1
