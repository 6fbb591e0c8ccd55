"""Linear layers with low-rank terms and the gradients of those (`source/linear.c`, `gradient.c`),
one at a time; afina.model.own_products has the arguments of a whole layer ready.

Weights are taken as they lie, `[out, in]` or turned; each result is rounded to bf16 once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from afina.model.kernels.calls import call_all, rows, structure, whole

Product: Final = structure(
    "Product",
    "x w low b beside out inner both gain",
    "x_row w_row low_row b_row beside_row out_row rows inputs outs rank w_turned b_turned waits",
    "scale",
    "failed next",
)
"""See `source/linear.c`; a product that `waits` reads what those before it in a list make."""
Gradient: Final = structure(
    "Gradient",
    "x y weight inverse sum",
    "x_row y_row sum_row rows xs ys turned",
    "scale",
    "failed next",
)
MULTIPLY: Final = "afina_linear"
ADD_GRADIENT: Final = "afina_add_gradient"


@dataclass(frozen=True)
class Matrix:
    """A weight `[out, in]`, or `[in, out]` where it is turned."""

    data: torch.Tensor
    turned: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        one, two = self.data.shape
        return (two, one) if self.turned else (one, two)


@dataclass(frozen=True)
class Low:
    """A low-rank term: `[T, rank]` times a matrix, times `scale`."""

    x: torch.Tensor
    matrix: Matrix
    scale: float


def linear(  # noqa: PLR0913
    x: torch.Tensor,
    matrix: Matrix,
    out: torch.Tensor,
    *,
    scale: float = 1.0,
    low: Low | None = None,
    beside: torch.Tensor | None = None,
    gain: torch.Tensor | None = None,
) -> None:
    """out = scale x Wᵀ, or x Wᵀ with a low-rank term; times `gain` `[out]` in fp32, and `beside`
    added. Inputs and ranks are even; `beside` may be a row of a bias, which is added to all."""
    count, (outs, inputs) = len(x), matrix.shape
    rank = 0 if low is None else low.x.shape[1]
    if inputs % 2 or rank % 2 or (low is not None and scale != 1.0):
        raise ValueError(f"wanted even inputs and ranks and one scale, not {inputs} and {rank}")
    call_all(MULTIPLY, (Product * 1)(Product(
        x=rows(x, count, inputs),
        w=rows(matrix.data, *matrix.data.shape),
        low=None if low is None else rows(low.x, count, rank),
        b=None if low is None else _low(low, outs),
        beside=None if beside is None else rows(beside, len(beside), outs),
        out=rows(out, count, outs),
        gain=None if gain is None else whole(gain, outs, dtype=torch.float32),
        x_row=x.stride(0),
        w_row=matrix.data.stride(0),
        low_row=0 if low is None else low.x.stride(0),
        b_row=0 if low is None else low.matrix.data.stride(0),
        beside_row=0 if beside is None else _stride(beside, count),
        out_row=out.stride(0),
        rows=count, inputs=inputs, outs=outs, rank=rank,
        w_turned=matrix.turned,
        b_turned=low is not None and low.matrix.turned,
        scale=scale if low is None else low.scale,
    )))  # fmt: skip


def _low(low: Low, outs: int) -> int:
    if low.matrix.shape != (outs, low.x.shape[1]):
        raise ValueError(f"wanted a matrix for {outs} outputs, not {low.matrix.shape}")
    return rows(low.matrix.data, *low.matrix.data.shape)


def _stride(beside: torch.Tensor, count: int) -> int:
    if len(beside) not in (1, count):
        raise ValueError(f"wanted 1 row or {count} to add, not {len(beside)}")
    return beside.stride(0) if len(beside) == count else 0


def add_gradient(
    x: torch.Tensor,
    y: torch.Tensor,
    into: torch.Tensor,
    *,
    scale: float = 1.0,
    turned: bool = False,
) -> None:
    """into += scale xᵀ y for `[T, X]` and `[T, Y]`, in fp32; `into` is `[X, Y]`, or `[Y, X]` where
    it is turned."""
    count, xs, ys = len(x), x.shape[1], y.shape[1]
    shape = (ys, xs) if turned else (xs, ys)
    call_all(ADD_GRADIENT, (Gradient * 1)(Gradient(
        x=rows(x, count, xs), y=rows(y, count, ys), sum=rows(into, *shape, dtype=torch.float32),
        x_row=x.stride(0), y_row=y.stride(0), sum_row=into.stride(0),
        rows=count, xs=xs, ys=ys, turned=turned, scale=scale,
    )))  # fmt: skip
