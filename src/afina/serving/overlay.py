"""Putting a tune's own weights into a freshly loaded base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from afina.errors import InvalidRequest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def put_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> list[nn.Parameter]:
    """Computes with `weights` where they are given; the parameters that changed.

    A head of its own, where the base's is the embedding, becomes a parameter of its own. Raises
    InvalidRequest if a weight is not one of the network's.
    """
    changed: list[nn.Parameter] = []
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    embedding = model.get_input_embeddings().weight
    for name, tensor in weights.items():
        found = model.get_parameter(name) if name in names else None
        if found is None or found.shape != tensor.shape:
            raise InvalidRequest(
                f"The tune does not fit its base: {name} is not there in that shape.",
                param="model",
            )
        own = nn.Parameter(tensor.to(found.dtype), requires_grad=False)
        if found is embedding and model.get_output_embeddings().weight is embedding:
            _set_tied(model, name, own, weights)
        else:
            _set(model, name, own)
        changed.append(own)
    return changed


def share_embedding(
    model: PreTrainedModel, base: PreTrainedModel, changed: list[nn.Parameter]
) -> None:
    """Uses the base's embedding, unless the tune has its own."""
    ours, theirs = model.get_input_embeddings(), base.get_input_embeddings()
    if not any(ours.weight is own for own in changed):
        is_head = model.get_output_embeddings().weight is ours.weight
        ours.weight = theirs.weight
        if is_head:
            model.get_output_embeddings().weight = theirs.weight


def _set_tied(
    model: PreTrainedModel, name: str, own: nn.Parameter, weights: Mapping[str, torch.Tensor]
) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    of_head = next(n for n, module in model.named_modules() if module is head)
    if name == f"{of_head}.weight":
        head.weight = own
        return
    embedding.weight = own
    if f"{of_head}.weight" not in weights:
        head.weight = own


def _set(model: PreTrainedModel, name: str, own: nn.Parameter) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, own)
