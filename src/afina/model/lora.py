"""The one LoRA layer, used by trainer and engine alike.

A `LoraLinear` stands in the place of a frozen linear layer and adds what its `Adapters` say for
this layer. The trainer's adapters hold one trainable pair of matrices a layer; the engine's hold
many adapters and choose by row. The layer itself knows neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import nn


class Adapters(Protocol):
    """Where LoRA layers get their low-rank term from."""

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor | None:
        """The term to add to layer `name`'s output for input `x` `[..., in]`, or None."""
        ...


@runtime_checkable
class FusedAdapters(Adapters, Protocol):
    """Adapters that compute base product and low-rank term together, as the trainer's do."""

    def linear(self, base: nn.Linear, name: str, x: torch.Tensor) -> torch.Tensor:
        """The whole output of layer `name`."""
        ...


class LoraLinear(nn.Module):
    """A frozen linear layer and the term that adapters add to it."""

    def __init__(self, base: nn.Linear, name: str, adapters: Adapters) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.set_adapters(adapters)
        self.in_features = base.in_features
        self.out_features = base.out_features

    def set_adapters(self, adapters: Adapters) -> None:
        """Takes the low-rank term from `adapters` from now on."""
        self.adapters = adapters
        self._fused = adapters if isinstance(adapters, FusedAdapters) else None

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight; some networks look at its dtype."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._fused is not None:
            return self._fused.linear(self.base, self.name, x)
        out: torch.Tensor = self.base(x)
        delta = self.adapters.delta(self.name, x)
        return out if delta is None else out + delta


def put_lora_layers(model: nn.Module, targets: Iterable[str], adapters: Adapters) -> list[str]:
    """Replaces each linear layer whose last name is in `targets`; returns their full names.

    Raises ValueError if a target matches no layer.
    """
    wanted = set(targets)
    found: dict[str, nn.Linear] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in wanted
    }
    missing = wanted - {name.rsplit(".", 1)[-1] for name in found}
    if missing:
        raise ValueError(f"the model has no linear layer named {sorted(missing)[0]!r}")
    for name, linear in found.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, LoraLinear(linear, name, adapters))
    return list(found)
