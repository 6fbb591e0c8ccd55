"""A base model with the run's adapter in it: the forward pass of a bin and its loss."""

from __future__ import annotations

import torch
from torch import nn

from afina.domain.runs import LoraSpec
from afina.model.base import LoadedBase
from afina.model.lora import LoraLinear, put_lora_layers
from afina.model.loss import summed_loss
from afina.model.trained import TrainedAdapter
from afina.training.bins import BinTensors


class _Unset:
    """Stands for the adapter while the layers that it needs are being found."""

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor | None:
        raise RuntimeError(f"{name} was called before its adapter was set ({tuple(x.shape)})")


class TrainedNetwork:
    """The network that a run tunes."""

    def __init__(self, base: LoadedBase, spec: LoraSpec, seed: int) -> None:
        self.base = base
        self.model = base.model
        names = put_lora_layers(self.model, spec.target_modules, _Unset())
        layers = {name: self._layer(name) for name in names}
        dtype = next(self.model.parameters()).dtype
        self.adapter = TrainedAdapter({n: m.base for n, m in layers.items()}, spec, dtype, seed)
        for layer in layers.values():
            layer.set_adapters(self.adapter)

    def _layer(self, name: str) -> LoraLinear:
        module: nn.Module = self.model.get_submodule(name)
        if not isinstance(module, LoraLinear):
            raise TypeError(f"{name} is no LoRA layer")
        return module

    def logits(self, tensors: BinTensors) -> torch.Tensor:
        """Logits `[K, V]` at the kept positions."""
        out = self.model(
            input_ids=tensors.ids_1T,
            position_ids=tensors.positions_1T,
            use_cache=False,
            logits_to_keep=tensors.keep_K,
            afina_ctx=tensors.context,
        )
        logits: torch.Tensor = out.logits[0]
        return logits

    def loss(self, tensors: BinTensors, learned: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The bin's part of the mean loss and of the token accuracy over `learned` tokens."""
        weights = tensors.weights_K / max(learned, 1)
        return summed_loss(self.logits(tensors), tensors.targets_K, weights)
