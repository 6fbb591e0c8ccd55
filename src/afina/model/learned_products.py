"""Linear layers whose own weights learn, or stay frozen below those that do, by kernels of our own.
They answer to the same calls as afina.model.own_products, without low-rank terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from afina.model.kernels.calls import call_all, usable, whole
from afina.model.kernels.linear import ADD_GRADIENT, MULTIPLY, Gradient, Product

_GATED = 16


@dataclass(frozen=True)
class LearnedProduct:
    """A weight `[out, in]`, and where its gradient goes; None of a frozen one."""

    weight: torch.Tensor
    grad: torch.Tensor | None

    @cached_property
    def outs(self) -> int:
        return self.weight.shape[0]

    @cached_property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def can_gate(self) -> bool:
        """Whether it opens the gate by itself, where it is that of gate and up."""
        return not self.outs // 2 % _GATED

    def forward(
        self, x: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        """x Wᵀ of `[T, in]`, with `beside` added to it."""
        out = x.new_empty(x.shape[0], self.outs)
        one = self._product(x, out)
        if beside is not None:
            one.beside, one.beside_row = whole(beside, *out.shape), self.outs
        call_all(MULTIPLY, (Product * 1)(one))
        return out, None

    def forward_gated(self, x: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        """Gate and up side by side, and silu(gate) * up."""
        out = x.new_empty(x.shape[0], self.outs)
        inner = x.new_empty(x.shape[0], self.outs // 2)
        one = self._product(x, out)
        one.inner = inner.data_ptr()
        call_all(MULTIPLY, (Product * 1)(one))
        return out, None, inner

    def _product(self, x: torch.Tensor, out: torch.Tensor) -> Product:
        return Product(
            x=whole(x, out.shape[0], self.inputs), x_row=self.inputs, rows=out.shape[0],
            w=self.weight.data_ptr(), w_row=self.weight.stride(0), inputs=self.inputs,
            outs=self.outs, out=out.data_ptr(), out_row=self.outs, scale=1.0,
        )  # fmt: skip

    def backward(
        self, grad: torch.Tensor, *, both: torch.Tensor | None = None, wanted: bool = True
    ) -> tuple[None, torch.Tensor]:
        """The gradient of x where it is wanted; see OwnProduct.backward."""
        count = grad.shape[0]
        out = grad.new_empty(count if wanted else 0, self.inputs)
        if wanted:
            one = Product(
                x=whole(grad, count, self.outs), x_row=self.outs, rows=count,
                w=self.weight.data_ptr(), w_row=self.weight.stride(0), w_turned=1,
                inputs=self.outs, outs=self.inputs, out=out.data_ptr(), out_row=self.inputs,
                both=None if both is None else whole(both, count, 2 * self.inputs), scale=1.0,
            )  # fmt: skip
            call_all(MULTIPLY, (Product * 1)(one))
        return None, out

    def add_gradients(
        self,
        grad: torch.Tensor,
        low_grad: None,  # noqa: ARG002
        x: torch.Tensor,
        low: None,  # noqa: ARG002
        norm: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Adds the gradient of the weight to its place; with `norm`, weight and inverse root, what
        was multiplied is the norm of `x`."""
        if self.grad is None:
            return
        count = x.shape[0]
        one = Gradient(
            x=whole(grad, count, self.outs), x_row=self.outs, xs=self.outs,
            y=whole(x, count, self.inputs), y_row=self.inputs, ys=self.inputs,
            sum=whole(self.grad, self.outs, self.inputs, dtype=torch.float32),
            sum_row=self.inputs, rows=count, scale=1.0,
        )  # fmt: skip
        if norm is not None:
            one.weight = whole(norm[0], self.inputs)
            one.inverse = whole(norm[1], count, dtype=torch.float32)
        call_all(ADD_GRADIENT, (Gradient * 1)(one))


def learned_product(weight: torch.Tensor, grad: torch.Tensor | None) -> LearnedProduct | None:
    """The product of a weight; None where no kernel computes it."""
    odd = weight.shape[0] % 2 or weight.shape[1] % 2
    if odd or not usable(weight) or weight.stride(1) != 1:
        return None
    return LearnedProduct(weight, grad)
