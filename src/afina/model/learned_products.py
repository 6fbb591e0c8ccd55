"""Linear layers whose own weights learn, or stay frozen below those that do, by kernels of our own.
They answer to the same calls as afina.model.own_products, without low-rank terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from afina.model.kernels.calls import call_all, usable, whole
from afina.model.kernels.linear import ADD_GRADIENT, MULTIPLY, Gradient, Product
from afina.model.product_calls import KernelProduct, opens_gate, take_in, take_norm


@dataclass(frozen=True)
class LearnedProduct(KernelProduct):
    """A weight `[out, in]`, and where its gradient goes; None of a frozen one."""

    grad: torch.Tensor | None

    @property
    def can_gate(self) -> bool:
        """Whether it opens the gate by itself, where it is that of gate and up."""
        return opens_gate((self.outs // 2, self.outs - self.outs // 2))

    def forward(
        self, x: torch.Tensor, beside: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        """x Wᵀ of `[T, in]`, with `beside` added to it."""
        out, one = self._product(x)
        if beside is not None:
            one.beside, one.beside_row = whole(beside, *out.shape), self.outs
        call_all(MULTIPLY, (Product * 1)(one))
        return out, None

    def forward_gated(self, x: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        """Gate and up side by side, and silu(gate) * up."""
        out, one = self._product(x)
        inner = x.new_empty(x.shape[0], self.outs // 2)
        one.inner = inner.data_ptr()
        call_all(MULTIPLY, (Product * 1)(one))
        return out, None, inner

    def _product(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The place of x Wᵀ, and what makes it."""
        count = x.shape[0]
        out, one = x.new_empty(count, self.outs), self.reading()
        take_in(one, count, whole(x, count, self.inputs), out.data_ptr())
        return out, one

    def backward(
        self, grad: torch.Tensor, *, both: torch.Tensor | None = None, wanted: bool = True
    ) -> tuple[None, torch.Tensor]:
        """The gradient of x where it is wanted; see OwnProduct.backward."""
        out = grad.new_empty(grad.shape[0] if wanted else 0, self.inputs)
        if wanted:
            one = self.reading_back()
            self.take_back(one, grad, out, both)
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
        take_norm(one, count, self.inputs, norm)
        call_all(ADD_GRADIENT, (Gradient * 1)(one))


def learned_product(weight: torch.Tensor, grad: torch.Tensor | None) -> LearnedProduct | None:
    """The product of a weight; None where no kernel computes it."""
    odd = weight.shape[0] % 2 or weight.shape[1] % 2
    if odd or not usable(weight) or weight.stride(1) != 1:
        return None
    return LearnedProduct(weight, grad)
