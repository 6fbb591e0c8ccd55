"""What linear layers by kernels of our own have in common, whether low-rank terms learn
(afina.model.own_products) or the weights themselves (afina.model.learned_products): the arguments
of the kernels that read a weight as it lies, or turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch

from afina.model.kernels.calls import whole
from afina.model.kernels.linear import Product

_GATED: Final = 16
"""Columns of gate and of up that a panel has; their number is a multiple of it."""


@dataclass(frozen=True)
class KernelProduct:
    """A weight `[out, in]` whose products kernels compute."""

    weight: torch.Tensor

    # asked a dozen times a layer: tensors are slow to answer
    @cached_property
    def outs(self) -> int:
        return self.weight.shape[0]

    @cached_property
    def inputs(self) -> int:
        return self.weight.shape[1]

    def reading(self, column: int = 0, outs: int | None = None, **more: Any) -> Any:
        """The arguments of x Wᵀ, or of `outs` columns of it from `column` on."""
        return Product(
            w=self.weight[column:].data_ptr(), w_row=self.weight.stride(0), x_row=self.inputs,
            out_row=self.outs, inputs=self.inputs, outs=self.outs if outs is None else outs,
            **{"scale": 1.0, **more},
        )  # fmt: skip

    def reading_back(self, **more: Any) -> Any:
        """The arguments of x's gradient."""
        return Product(
            w=self.weight.data_ptr(), w_row=self.weight.stride(0), w_turned=1, x_row=self.outs,
            out_row=self.inputs, inputs=self.outs, outs=self.inputs, scale=1.0, **more,
        )  # fmt: skip

    def take_back(
        self, one: Any, grad: torch.Tensor, out: torch.Tensor, both: torch.Tensor | None
    ) -> None:
        """Puts the outputs' gradient and the place of x's in; with `both`, gate and up together
        `[T, 2 in]`, x is silu(gate) * up."""
        count = grad.shape[0]
        take_in(one, count, whole(grad, count, self.outs), out.data_ptr())
        one.both = None if both is None else whole(both, count, 2 * self.inputs)


def opens_gate(outs: Sequence[int]) -> bool:
    """Whether a product of layers of so many outputs can be gate and up, and their kernel opens
    the gate by itself."""
    return len(outs) == 2 and outs[0] == outs[1] and not outs[0] % _GATED


def take_in(product: Any, count: int, x: int, out: int) -> None:
    """Where the rows that a product reads lie, how many they are, and where its own go."""
    product.rows, product.x, product.out = count, x, out


def take_norm(
    gradient: Any, count: int, inputs: int, norm: tuple[torch.Tensor, torch.Tensor] | None
) -> None:
    """With `norm`, weight and inverse root, what a product read is the norm of what is given."""
    if norm is not None:
        gradient.weight = whole(norm[0], inputs)
        gradient.inverse = whole(norm[1], count, dtype=torch.float32)
