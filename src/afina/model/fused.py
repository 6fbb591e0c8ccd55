"""Norms and gates of a frozen network in fewer operations, forward and backward by hand.

Autograd keeps an fp32 copy for every operation inside a norm; by hand only the input and one number
a token stay. A module is replaced only where, tried out, it gives the same bits as before, so a
network that norms or gates in another way keeps its own code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from afina.model.kernels.calls import usable
from afina.model.kernels.linear import Matrix, linear

_TRIED_TOKENS: Final = 5


def fuse_frozen(model: nn.Module) -> int:
    """Replaces the forward pass of what can be replaced; returns how many modules that were."""
    count = 0
    for module in model.modules():
        made = _fused_norm(module) or _fused_gate(module)
        if made is not None and _same(module, *made):
            module.forward = made[0]
            count += 1
    return count


def fuse_head(model: nn.Module) -> bool:
    """Takes kernels of our own for a frozen last layer, forward and back; whether there are."""
    find = getattr(model, "get_output_embeddings", None)
    head: object = find() if callable(find) else None
    if not isinstance(head, nn.Linear) or head.__class__ is not nn.Linear:
        return False
    weight = head.weight.data
    if getattr(head, "bias", None) is not None or head.weight.requires_grad:
        return False
    if not usable(weight) or weight.shape[0] % 2 or weight.shape[1] % 2:
        return False
    head.forward = partial(_headed, weight)  # type: ignore[method-assign]
    return True


def _headed(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = FrozenHead.apply(x, weight)  # type: ignore[no-untyped-call]
    return out


class FrozenHead(torch.autograd.Function):
    """x Wᵀ with a frozen weight, by kernels."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.weight = weight
        flat = x.reshape(-1, x.shape[-1])
        out = x.new_empty(len(flat), len(weight))
        linear(flat, Matrix(weight), out)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat = grads[0].reshape(-1, grads[0].shape[-1])
        out = flat.new_empty(len(flat), ctx.weight.shape[1])
        linear(flat, Matrix(ctx.weight, turned=True), out)
        return out.view(*grads[0].shape[:-1], -1), None


def _same(module: nn.Module, made: Callable[[torch.Tensor], torch.Tensor], width: int) -> bool:
    """Whether the module itself and `made` give the same bits."""
    like = next(module.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, _TRIED_TOKENS, width, generator=generator).to(like.dtype)
    with torch.no_grad():
        theirs = module(x)
        return isinstance(theirs, torch.Tensor) and torch.equal(theirs, made(x))


def _fused_norm(
    module: nn.Module,
) -> tuple[Callable[[torch.Tensor], torch.Tensor], int] | None:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not (
        type(module).__name__.endswith("RMSNorm")
        and isinstance(weight, torch.Tensor)
        and weight.dim() == 1
        and isinstance(epsilon, float)
    ):
        return None
    return partial(_norm, module, epsilon), len(weight)


def _norm(module: nn.Module, epsilon: float, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Norm.apply(  # type: ignore[no-untyped-call]
        x, module.weight, epsilon
    )
    return out


def norm_of(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight * x / sqrt(mean(x²) + epsilon), the root and the quotient in fp32, and 1 over the
    root. https://arxiv.org/abs/1910.07467"""
    wide = x.to(torch.float32, copy=True)
    inverse = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
    return wide.mul_(inverse).to(x.dtype).mul_(weight), inverse


def norm_back(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    beside: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient of x through `norm_of`, whose weight is frozen; `beside` is added to it."""
    wide = (grad * weight).to(torch.float32)
    normed = x.to(torch.float32, copy=True).mul_(inverse)
    along = (wide * normed).mean(-1, keepdim=True)
    wide.addcmul_(normed, along, value=-1).mul_(inverse)
    if beside is not None:
        wide.add_(beside)
    return wide.to(x.dtype)


class _Norm(torch.autograd.Function):
    """`norm_of` with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        out, inverse = norm_of(x, weight, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        return norm_back(grads[0], x, weight, inverse), None, None


def _fused_gate(
    module: nn.Module,
) -> tuple[Callable[[torch.Tensor], torch.Tensor], int] | None:
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    activation = getattr(module, "act_fn", None)
    if not (
        all(isinstance(layer, nn.Module) for layer in layers)
        and isinstance(activation, nn.Module)
        and type(activation).__name__ in ("SiLU", "SiLUActivation")
    ):
        return None
    return partial(_gated, module), int(layers[0].in_features)  # type: ignore[union-attr]


def _gated(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)  # type: ignore[operator]
    inner = _Gate.apply(gate, up)  # type: ignore[no-untyped-call]
    out: torch.Tensor = module.down_proj(inner)  # type: ignore[operator]
    return out


class _Gate(torch.autograd.Function):
    """silu(gate) * up, computed again in the backward pass. https://arxiv.org/abs/2002.05202"""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        # side by side, as the layers that made gate and up want their gradients
        both = gate.new_empty(*gate.shape[:-1], 2, gate.shape[-1])
        of_gate, of_up = both[..., 0, :], both[..., 1, :]
        gate_back(grads[0], gate, up, functional.silu(gate), (of_gate, of_up))
        return of_gate, of_up


def gate_back(
    grad: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    opened: torch.Tensor,
    into: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Writes the gradients of gate and up through silu(gate) * up; `opened` is silu(gate)."""
    torch.mul(grad, opened, out=into[1])
    torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=into[0])


def fused_norm_epsilon(module: object) -> float | None:
    """The epsilon of a module whose forward pass became `norm_of`; None of any other."""
    made = vars(module).get("forward")
    return made.args[1] if isinstance(made, partial) and made.func is _norm else None


def is_fused_gate(module: object) -> bool:
    """Whether a module's forward pass became silu(gate) * up between linear layers."""
    made = vars(module).get("forward")
    return isinstance(made, partial) and made.func is _gated
