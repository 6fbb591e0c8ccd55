"""What is not a product, in one pass over memory each (`source/rows.c`): norms, gate, rotation."""

from __future__ import annotations

from typing import Final

import torch

from afina.model.kernels.calls import call, rows, structure, whole

_Norm: Final = structure("_Norm", "x weight grad beside out inverse", "rows width", "epsilon")
_Scale: Final = structure("_Scale", "x grad inverse sum", "rows width", "")
_Gate: Final = structure("_Gate", "both inner", "rows width", "")
_Rotation: Final = structure("_Rotation", "x cos sin", "rows row heads size", "sign")


def norm_forward(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight * x / sqrt(mean(x²) + epsilon) of `[T, W]`, and 1 over the root `[T]` in fp32."""
    out, inverse = torch.empty_like(x), torch.empty(x.shape[0])
    call("afina_norm_forward", _Norm(
        x=whole(x, *x.shape), weight=whole(weight, x.shape[1]), out=out.data_ptr(),
        inverse=inverse.data_ptr(), rows=x.shape[0], width=x.shape[1], epsilon=epsilon,
    ))  # fmt: skip
    return out, inverse


def norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    beside: torch.Tensor | None,
) -> torch.Tensor:
    """The gradient of x through a norm whose weight is frozen, with `beside` added. It is written
    over `grad`."""
    call("afina_norm_backward", _Norm(
        x=whole(x, *x.shape), weight=whole(weight, x.shape[1]), grad=whole(grad, *x.shape),
        beside=None if beside is None else whole(beside, *x.shape), out=grad.data_ptr(),
        inverse=whole(inverse, x.shape[0], dtype=torch.float32), rows=x.shape[0], width=x.shape[1],
    ))  # fmt: skip
    return grad


def add_scale_gradient(
    into: torch.Tensor, grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor
) -> None:
    """Adds the gradient of a norm's weight to `into` `[W]` in fp32; `grad` is that of the norm."""
    call("afina_scale_gradient", _Scale(
        x=whole(x, *x.shape), grad=whole(grad, *x.shape),
        inverse=whole(inverse, x.shape[0], dtype=torch.float32),
        sum=whole(into, x.shape[1], dtype=torch.float32), rows=x.shape[0], width=x.shape[1],
    ))  # fmt: skip


def gate_forward(both: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, `[T, I]`, for gate and up side by side, `[T, 2 I]`."""
    width = both.shape[1] // 2
    inner = both.new_empty(both.shape[0], width)
    call("afina_gate_forward", _Gate(
        both=whole(both, both.shape[0], 2 * width), inner=inner.data_ptr(), rows=both.shape[0],
        width=width,
    ))  # fmt: skip
    return inner


def rotate_heads(
    x: torch.Tensor, heads: int, cos: torch.Tensor, sin: torch.Tensor, *, back: bool = False
) -> None:
    """Turns the first heads of `[T, W]` by their positions, in place, or gradients back; cos and
    sin are `[T, D]`."""
    count, size = cos.shape
    if size % 2 or heads * size > x.shape[1]:
        raise ValueError(f"{heads} heads of {size} do not lie in rows of {x.shape[1]}")
    call("afina_rotate", _Rotation(
        x=rows(x, count, x.shape[1]), cos=whole(cos, count, size), sin=whole(sin, count, size),
        rows=count, row=x.stride(0), heads=heads, size=size, sign=-1.0 if back else 1.0,
    ))  # fmt: skip
