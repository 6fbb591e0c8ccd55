"""A tuned model as one whole: the base's folder with the adapter added to its weights, or with the
tune's own weights in the place of the base's.

Works file by file on safetensors, without building the network: each target layer's weight becomes
W + scaling · B A, summed in fp32 and stored as the base stores it. Any loader of the base can load
what comes out; nothing of afina is needed any more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from afina.domain.manifests import OWN_WEIGHTS
from afina.errors import InvalidRequest
from afina.model.folder import RECORD, vet_folder
from afina.model.own_weights import read_weights
from afina.model.peft_files import CONFIG, WEIGHTS, read_adapter

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
    _check_names(change, _weight_names(base))
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in sorted(base.iterdir()):
        if path.suffix == ".safetensors":
            progress(f"Merging {path.name} …")
            _merge_file(path, partial / path.name, change)
        elif path.is_file() and path.name != RECORD:
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


def _change(folder: Path) -> _Change:
    if (folder / OWN_WEIGHTS).exists():
        return _Change(0.0, {}, read_weights(folder / OWN_WEIGHTS))
    config, pairs = read_adapter(folder / CONFIG, folder / WEIGHTS)
    return _Change(config.scaling, pairs, {})


def _check_names(change: _Change, names: set[str]) -> None:
    missing = set(change.pairs) - {_layer(name) for name in names} | set(change.weights) - names
    if missing == {_HEAD}:
        raise InvalidRequest(
            "The tune has a head of its own, where its base's head is the embedding: such a model "
            "cannot be merged into one folder here.",
            remedy="Export its own files instead, or tune without norm_and_head.",
        )
    if missing:
        raise InvalidRequest(
            f"The tune changes {sorted(missing)[0]}, which the base model does not have.",
            remedy="Export the model with the base that it was tuned from.",
        )


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
    a, b = (side.float() for side in pair)
    return weight.float().addmm_(b, a, alpha=change.scaling).to(weight.dtype)
