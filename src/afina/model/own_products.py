"""Linear layers with low-rank terms by kernels of our own: the same as afina.model.products, with
the low-rank term, bias, residual and gate inside the product, and gradients summed in fp32.

The kernels' arguments are made once; a call copies them and puts in where its tensors lie. Each
step of the backward pass is a call of its own, because what a product read is sometimes made again
only after its gradient is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from afina.model.kernels.calls import again, call_all, usable, whole
from afina.model.kernels.linear import ADD_GRADIENT, MULTIPLY, Gradient, Product
from afina.model.product_calls import KernelProduct, opens_gate, take_in, take_norm

_BYTES = 2


@dataclass(frozen=True)
class Part:
    """One layer of a product: where its columns of the output and of x Aᵀ begin, its B
    `[out, rank]`, and where the gradient of B goes."""

    column: int
    rank: int
    b: torch.Tensor
    grad_b: torch.Tensor


@dataclass(frozen=True)
class OwnProduct(KernelProduct):
    """The layers of one product. `a` and `grad_a` are all of their A, one below the other; `b` is
    the block diagonal of their B."""

    bias: torch.Tensor | None
    a: torch.Tensor
    grad_a: torch.Tensor
    b: torch.Tensor
    parts: tuple[Part, ...]
    scaling: float

    @cached_property
    def ranks(self) -> int:
        return self.a.shape[0]

    @cached_property
    def can_gate(self) -> bool:
        """Whether it opens the gate by itself, where it is that of gate and up."""
        return self.bias is None and opens_gate([len(part.b) for part in self.parts])

    @cached_property
    def _low(self) -> Any:
        """x Aᵀ."""
        a = self.a
        return Product(
            w=a.data_ptr(), w_row=a.stride(0), x_row=self.inputs, out_row=self.ranks,
            inputs=self.inputs, outs=self.ranks, scale=1.0,
        )  # fmt: skip

    @cached_property
    def _forward(self) -> Any:
        """x Aᵀ, then each layer's product with its own columns of that."""
        found = [self._low]
        for part in self.parts:
            outs, rank = part.b.shape
            found.append(self.reading(
                part.column, outs, b=part.b.data_ptr(), b_row=part.b.stride(0), rank=rank,
                low_row=self.ranks, beside_row=self.outs, scale=self.scaling,
                waits=len(found) == 1,
            ))  # fmt: skip
        return (Product * len(found))(*found)

    @cached_property
    def _gated(self) -> Any:
        """x Aᵀ, then gate, up and their inner product in one."""
        return (Product * 2)(self._low, self.reading(
            b=self.b.data_ptr(), b_row=self.b.stride(0), rank=self.ranks, low_row=self.ranks,
            scale=self.scaling, waits=1,
        ))  # fmt: skip

    @cached_property
    def _low_grad(self) -> Any:
        """The gradient of x Aᵀ, each layer's columns of it from its columns of the outputs'."""
        found = []
        for part in self.parts:
            outs, rank = part.b.shape
            found.append(Product(
                w=part.b.data_ptr(), w_row=part.b.stride(0), w_turned=1,
                x_row=self.outs, out_row=self.ranks, inputs=outs, outs=rank, scale=self.scaling,
            ))  # fmt: skip
        return (Product * len(found))(*found)

    @cached_property
    def _x_grad(self) -> Any:
        return self.reading_back(
            b=self.a.data_ptr(), b_row=self.a.stride(0), b_turned=1, rank=self.ranks,
            low_row=self.ranks, waits=1,
        )  # fmt: skip

    @cached_property
    def _gradients(self) -> Any:
        """That of A, then those of each B."""
        found = [Gradient(
            sum=self.grad_a.data_ptr(), sum_row=self.grad_a.stride(0), x_row=self.ranks,
            y_row=self.inputs, xs=self.ranks, ys=self.inputs, scale=1.0,
        )]  # fmt: skip
        for part in self.parts:
            outs, rank = part.b.shape
            found.append(Gradient(
                sum=part.grad_b.data_ptr(), sum_row=part.grad_b.stride(0), turned=1,
                x_row=self.ranks, y_row=self.outs, xs=rank, ys=outs, scale=self.scaling,
            ))  # fmt: skip
        return (Gradient * len(found))(*found)

    def forward(
        self, x: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For `[T, in]` all layers' outputs side by side, with `beside` added to them, and x Aᵀ."""
        count = x.shape[0]
        low, out = x.new_empty(count, self.ranks), x.new_empty(count, self.outs)
        listed = again(self._forward)
        take_in(listed[0], count, whole(x, count, self.inputs), low.data_ptr())
        if self.bias is not None:
            more, step = self.bias.data_ptr(), 0
        elif beside is not None:
            more, step = whole(beside, count, self.outs), self.outs
        else:
            more, step = 0, 0
        for one, part in zip(listed[1:], self.parts, strict=True):
            take_in(one, count, x.data_ptr(), out.data_ptr() + _BYTES * part.column)
            one.low = low.data_ptr() + _BYTES * part.rank
            if more:
                one.beside, one.beside_row = more + _BYTES * part.column, step
        call_all(MULTIPLY, listed)
        if self.bias is not None and beside is not None:
            out += beside
        return out, low

    def forward_gated(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gate and up side by side, x Aᵀ, and silu(gate) * up."""
        count = x.shape[0]
        low, out = x.new_empty(count, self.ranks), x.new_empty(count, self.outs)
        inner = x.new_empty(count, self.outs // 2)
        listed = again(self._gated)
        take_in(listed[0], count, whole(x, count, self.inputs), low.data_ptr())
        take_in(listed[1], count, x.data_ptr(), out.data_ptr())
        listed[1].low, listed[1].inner = low.data_ptr(), inner.data_ptr()
        call_all(MULTIPLY, listed)
        return out, low, inner

    def backward(
        self, grad: torch.Tensor, *, both: torch.Tensor | None = None, wanted: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of x Aᵀ and, where it is wanted, of x. With `both`, gate and up together
        `[T, 2 in]`, x is silu(gate) * up: it comes in place of its gradient, and the gradients of
        gate and up take their places."""
        count = grad.shape[0]
        low_grad = grad.new_empty(count, self.ranks)
        out = grad.new_empty(count if wanted else 0, self.inputs)
        listed = (Product * (len(self.parts) + wanted))(*self._low_grad)
        for one, part in zip(listed, self.parts, strict=False):
            x = whole(grad, count, self.outs) + _BYTES * part.column
            take_in(one, count, x, low_grad.data_ptr() + _BYTES * part.rank)
        if wanted:
            listed[-1] = self._x_grad
            self.take_back(listed[-1], grad, out, both)
            listed[-1].low = low_grad.data_ptr()
        call_all(MULTIPLY, listed)
        return low_grad, out

    def add_gradients(
        self,
        grad: torch.Tensor,
        low_grad: torch.Tensor,
        x: torch.Tensor,
        low: torch.Tensor,
        norm: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Adds the gradients of A and B to their places. With `norm`, weight and inverse root, what
        the product read is the norm of `x`."""
        count = x.shape[0]
        listed = again(self._gradients)
        listed[0].rows, listed[0].x = count, whole(low_grad, count, self.ranks)
        listed[0].y = whole(x, count, self.inputs)
        take_norm(listed[0], count, self.inputs, norm)
        y, of_low = whole(grad, count, self.outs), whole(low, count, self.ranks)
        for one, part in zip(listed[1:], self.parts, strict=True):
            one.rows, one.x = count, of_low + _BYTES * part.rank
            one.y = y + _BYTES * part.column
        call_all(ADD_GRADIENT, listed)


def own_product(
    frozen: tuple[torch.Tensor, torch.Tensor | None],
    joint_a: tuple[torch.Tensor, torch.Tensor],
    b: torch.Tensor,
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]],
    scaling: float,
) -> OwnProduct | None:
    """The product of frozen layers (weight and bias) whose B and gradient of B are `parts`; None
    where no kernel computes it. A low-rank term of fp32 is none of theirs."""
    weight, bias = frozen
    ranks = [one.shape[1] for one, _ in parts]
    outs = [one.shape[0] for one, _ in parts]
    odd = any(size % 2 for size in (*weight.shape, *ranks, *outs))
    together = weight.stride(1) == 1 and (bias is None or bias.is_contiguous())
    if odd or not together or not all(usable(one) for one in (weight, *joint_a[:1], b)):
        return None
    made = [
        Part(column, rank, one, grad)
        for column, rank, (one, grad) in zip(_starts(outs), _starts(ranks), parts, strict=True)
    ]
    return OwnProduct(weight, bias, *joint_a, b, tuple(made), scaling)


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]
