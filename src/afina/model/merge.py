"""A tuned model as one whole: the base's folder with the adapter added to its weights, or with the
tune's own weights in the place of the base's.

Works file by file on safetensors, without building the network: each target layer's weight becomes
W + scaling · B A (of DoRA with its rows at their lengths), summed in fp32 and stored as the base
stores it. Where the base's files spell a weight in another way than its network (experts of a
mixture lie apart in files and are one tensor in memory), or the tune has a head of its own,
transformers builds the network once and writes it. Any loader of the base can load what comes out;
nothing of afina is needed any more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from afina.domain.manifests import OWN_WEIGHTS
from afina.errors import InvalidRequest
from afina.model.dora import merged_weight
from afina.model.folder import RECORD, vet_folder
from afina.model.own_weights import read_weights
from afina.model.peft_files import (
    CONFIG,
    WEIGHTS,
    Magnitudes,
    parse_config,
    read_adapter,
    read_dora,
)

_INDEX: Final = ".safetensors.index.json"
_HEAD: Final = "lm_head.weight"
Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def merge(
    base: Path, adapter: Path, target: Path, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Writes the folder `base` with the adapter of the folder `adapter` added, at `target`, which
    is new or empty.

    Raises InvalidRequest if the adapter tunes a layer that the base does not have.
    """
    vet_folder(base)
    change = _change(adapter)
    if target.exists() and any(target.iterdir()):
        raise InvalidRequest(f"The folder {target} is not empty.", remedy="Name a new one.")
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rebuilt = not change.names <= _weight_names(base)
    if rebuilt:
        progress("Merging in memory …")
        _merge_in_memory(base, partial, change)
    for path in sorted(base.iterdir()):
        if path.suffix == ".safetensors" and not rebuilt:
            progress(f"Merging {path.name} …")
            _merge_file(path, partial / path.name, change)
        elif _is_other(path) and not (partial / path.name).exists():
            shutil.copy2(path, partial / path.name)
    if target.exists():
        target.rmdir()
    partial.rename(target)


@dataclass(frozen=True)
class _Change:
    """What a tune does to its base: low-rank pairs by layer, or weights by name."""

    scaling: float
    pairs: Pairs
    weights: Mapping[str, torch.Tensor]
    magnitudes: Magnitudes = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The weights that it changes."""
        return {f"{layer}.weight" for layer in self.pairs} | set(self.weights)


def _change(folder: Path) -> _Change:
    if (folder / OWN_WEIGHTS).exists():
        return _Change(0.0, {}, read_weights(folder / OWN_WEIGHTS))
    if parse_config((folder / CONFIG).read_bytes()).dora:
        config, pairs, magnitudes = read_dora(folder / CONFIG, folder / WEIGHTS)
        return _Change(config.scaling, pairs, {}, magnitudes)
    config, pairs = read_adapter(folder / CONFIG, folder / WEIGHTS)
    return _Change(config.scaling, pairs, {})


def _merge_in_memory(base: Path, target: Path, change: _Change) -> None:
    """The same by the network's own names for its weights, written by transformers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(change.names - names)
    if missing:
        raise InvalidRequest(
            f"The tune changes {missing[0]}, which the base model does not have.",
            remedy="Export the model with the base that it was tuned from.",
        )
    head = model.get_output_embeddings()
    if _HEAD in change.weights and head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        for name in sorted(change.names):
            weight = model.get_parameter(name)
            weight.copy_(_merged(name, weight, change))
    model.save_pretrained(target)
    for path in target.glob("*.safetensors"):
        path.chmod(0o644)


def _is_other(path: Path) -> bool:
    weights = path.suffix == ".safetensors" or path.name.endswith(_INDEX)
    return path.is_file() and path.name != RECORD and not weights


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _weight_names(base: Path) -> set[str]:
    index = next(iter(base.glob(f"*{_INDEX}")), None)
    if index is not None:
        return set(json.loads(index.read_bytes())["weight_map"])
    names: set[str] = set()
    for path in base.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names.update(file.keys())
    return names


def _merge_file(source: Path, target: Path, change: _Change) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            tensors[name] = _merged(name, file.get_tensor(name), change)
    save_file(tensors, target, metadata=metadata or {"format": "pt"})
    target.chmod(0o644)


def _merged(name: str, weight: torch.Tensor, change: _Change) -> torch.Tensor:
    if name in change.weights:
        return change.weights[name].to(weight.dtype)
    pair = change.pairs.get(_layer(name))
    if pair is None:
        return weight
    if change.magnitudes:
        magnitude = change.magnitudes[_layer(name)]
        return merged_weight(weight, pair, magnitude, change.scaling).to(weight.dtype)
    a, b = (side.float() for side in pair)
    return weight.float().addmm_(b, a, alpha=change.scaling).to(weight.dtype)
