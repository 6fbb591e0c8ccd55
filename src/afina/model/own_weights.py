"""Tuning a network's own weights: all of them, or those of the top blocks.

fp32 masters and gradients lie in flat tensors, as those of adapters do (afina.model.trained); the
parameters themselves become views of one flat tensor in the precision that the network computes
in. A gradient is added to its place as soon as the backward pass has it, in fp32, so that bins and
micro-batches of any number add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from afina.errors import InvalidRequest
from afina.model.folder import vet_safetensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OwnWeights:
    """The parameters of a network that a run moves."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.names = list(parameters)
        size = sum(parameter.numel() for parameter in parameters.values())
        dtype = next(iter(parameters.values())).dtype
        self.masters = torch.empty(size)
        self.grads = torch.zeros(size)
        self.compute = torch.empty(size, dtype=dtype)
        self.dropout_generator: torch.Generator | None = None
        """Never used: weights have no dropout of their own."""
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self.places: dict[str, slice] = {}
        start = 0
        for name, parameter in parameters.items():
            place = slice(start, start + parameter.numel())
            self.places[name] = place
            self._take_over(parameter, place)
            start = place.stop

    def _take_over(self, parameter: nn.Parameter, place: slice) -> None:
        self.masters[place].copy_(parameter.data.flatten())
        own = self.compute[place].view(parameter.shape)
        own.copy_(parameter.data)
        parameter.data = own
        parameter.requires_grad_(True)
        into = self.grads[place].view(parameter.shape)

        def collect(owner: torch.Tensor) -> None:
            if owner.grad is not None:
                into.add_(owner.grad)
                owner.grad = None

        parameter.register_post_accumulate_grad_hook(collect)  # type: ignore[no-untyped-call]

    def joined(self, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The weights of these names one below the other, and the places of their gradients; None
        where they do not lie so."""
        slices = [self.places[name] for name in names if name in self.places]
        together = all(a.stop == b.start for a, b in pairwise(slices))
        if len(slices) != len(names) or not together:
            return None
        shapes = [self._shapes[name] for name in names]
        if len({shape[1:] for shape in shapes}) != 1:
            return None
        place = slice(slices[0].start, slices[-1].stop)
        shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return self.compute[place].view(shape), self.grads[place].view(shape)

    def refresh(self) -> None:
        """Copies the masters into the precision that the network computes in."""
        self.compute.copy_(self.masters)

    def published(self) -> dict[str, torch.Tensor]:
        """Each weight in bf16, as it is published."""
        return {
            name: self.masters[place].view(self._shapes[name]).to(torch.bfloat16)
            for name, place in self.places.items()
        }

    def load(self, weights: Mapping[str, torch.Tensor], *, into_masters: bool) -> None:
        """Computes with `weights` from now on; with `into_masters` goes on from them. Raises
        InvalidRequest if they are not these parameters."""
        if set(weights) != set(self.names):
            odd = sorted(set(weights) ^ set(self.names))[0]
            raise InvalidRequest(
                f"The weights do not fit what is tuned: {odd} is on one side only."
            )
        for name, place in self.places.items():
            target = self.masters if into_masters else self.compute
            target[place].copy_(weights[name].flatten())
        if into_masters:
            self.refresh()


def weights_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    """The bytes of a weights.safetensors, the same for the same weights."""
    raw: bytes = save(dict(sorted(weights.items())), metadata={"format": "pt"})
    return raw


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights.safetensors. Raises InvalidRequest for a file that is none."""
    vet_safetensors(path)
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


def all_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Every parameter once, by the first of its names."""
    return dict(model.named_parameters())


def top_parameters(
    model: PreTrainedModel, layers: int, *, norm_and_head: bool
) -> dict[str, nn.Parameter]:
    """The parameters of the top blocks; with `norm_and_head` those of the final norm, and a head
    of its own where the base's shares the embedding's."""
    path, blocks = find_blocks(model)
    found = {
        f"{path}.{index}.{name}": parameter
        for index in range(len(blocks) - layers, len(blocks))
        for name, parameter in blocks[index].named_parameters()
    }
    if norm_and_head:
        found |= _norm_and_head(model, path.rpartition(".")[0])
    return found


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of a network's blocks, and its name."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ValueError(f"the network has no list of {count} blocks")


def _norm_and_head(model: PreTrainedModel, parent: str) -> dict[str, nn.Parameter]:
    found = {
        f"{parent}.{child}.{name}": parameter
        for child, module in model.get_submodule(parent).named_children()
        if "norm" in child
        for name, parameter in module.named_parameters()
    }
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    of_head = next(name for name, module in model.named_modules() if module is head)
    return found | {f"{of_head}.{name}": p for name, p in head.named_parameters()}
