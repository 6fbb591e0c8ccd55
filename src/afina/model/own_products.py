"""Linear layers with low-rank terms by kernels of our own: the same as afina.model.products, with
the low-rank term, bias and residual inside the product, and gradients summed in fp32 throughout.

Each step is a call of its own, because the backward pass of a layer wants them in different orders:
what a product read is sometimes made again only after its gradient is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from afina.model.kernels.calls import usable
from afina.model.kernels.linear import Low, Matrix, add_gradient, linear


@dataclass(frozen=True)
class Part:
    """One layer of a product: its columns of the output and of x Aᵀ, its B `[out, rank]`, and where
    the gradient of B goes."""

    columns: slice
    ranks: slice
    b: torch.Tensor
    grad_b: torch.Tensor


@dataclass(frozen=True)
class OwnProduct:
    """The layers of one product. `a` and `grad_a` are all of their A, one below the other."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    a: torch.Tensor
    grad_a: torch.Tensor
    parts: tuple[Part, ...]
    scaling: float

    def low(self, x: torch.Tensor) -> torch.Tensor:
        """x Aᵀ."""
        out = x.new_empty(len(x), len(self.a))
        linear(x, Matrix(self.a), out)
        return out

    def forward(
        self, x: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For `[T, in]` all layers' outputs side by side, with `beside` added to them, and x Aᵀ."""
        low = self.low(x)
        out = x.new_empty(len(x), len(self.weight))
        more = beside if self.bias is None else self.bias[None]
        for part in self.parts:
            linear(
                x,
                Matrix(self.weight[part.columns]),
                out[:, part.columns],
                low=Low(low[:, part.ranks], Matrix(part.b), self.scaling),
                beside=None if more is None else more[:, part.columns],
            )
        if self.bias is not None and beside is not None:
            out += beside
        return out, low

    def low_grad(self, grad: torch.Tensor) -> torch.Tensor:
        """The gradient of x Aᵀ for that of the outputs."""
        out = grad.new_empty(len(grad), len(self.a))
        for part in self.parts:
            matrix = Matrix(part.b, turned=True)
            linear(grad[:, part.columns], matrix, out[:, part.ranks], scale=self.scaling)
        return out

    def x_grad(self, grad: torch.Tensor, low_grad: torch.Tensor) -> torch.Tensor:
        """The gradient of x."""
        out = grad.new_empty(len(grad), self.weight.shape[1])
        low = Low(low_grad, Matrix(self.a, turned=True), 1.0)
        linear(grad, Matrix(self.weight, turned=True), out, low=low)
        return out

    def add_gradients(
        self, grad: torch.Tensor, low_grad: torch.Tensor, x: torch.Tensor, low: torch.Tensor
    ) -> None:
        """Adds the gradients of A and B to their places."""
        add_gradient(low_grad, x, self.grad_a)
        for part in self.parts:
            add_gradient(
                low[:, part.ranks],
                grad[:, part.columns],
                part.grad_b,
                scale=self.scaling,
                turned=True,
            )


def own_product(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    joint_a: tuple[torch.Tensor, torch.Tensor],
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    scaling: float,
) -> OwnProduct | None:
    """The product of frozen layers whose B and gradient of B are `parts`; None where no kernel
    computes it. A low-rank term of fp32 is none of theirs."""
    ranks = [b.shape[1] for b, _ in parts]
    outs = [b.shape[0] for b, _ in parts]
    odd = any(size % 2 for size in (*weight.shape, *ranks, *outs))
    if odd or not (usable(weight) and usable(joint_a[0])) or weight.stride(1) != 1:
        return None
    columns = _slices(outs)
    made = [
        Part(column, rank, b, grad_b)
        for column, rank, (b, grad_b) in zip(columns, _slices(ranks), parts, strict=True)
    ]
    return OwnProduct(weight, bias, *joint_a, tuple(made), scaling)


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    return [slice(one, two) for one, two in pairwise(ends)]
