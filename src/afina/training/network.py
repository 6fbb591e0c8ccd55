"""The network that a run trains: the forward pass of a bin, its loss, and what is published.

What differs between kinds of tuning (adapters, or weights of one's own) is behind `Network`; loop,
optimiser and checkpoints know masters and gradients in flat tensors, and files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import torch
from safetensors.torch import load
from torch import nn

from afina.domain.runs import LoraSpec, OptimizerSpec
from afina.model.base import LoadedBase
from afina.model.block import fuse_blocks
from afina.model.dora import DoraAdapter
from afina.model.fused import fuse_frozen, fuse_head
from afina.model.lora import LoraLinear, put_lora_layers
from afina.model.loss import summed_loss
from afina.model.packed import Masks
from afina.model.peft_files import (
    CONFIG,
    WEIGHTS,
    AdapterConfig,
    adapter_bytes,
    read_adapter,
    read_dora,
)
from afina.model.trained import TrainedAdapter
from afina.training.bins import BinTensors, Rows, make_bin
from afina.training.optimizer import AdamW
from afina.training.packing import Bin
from afina.training.team import Team
from afina.training.tensor_files import Pieces, flat_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MASTERS: Final = "masters.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"


class Trained(Protocol):
    """What a run moves: fp32 masters and their gradients, flat."""

    masters: torch.Tensor
    grads: torch.Tensor
    dropout_generator: torch.Generator | None

    def refresh(self) -> None:
        """Copies the masters into the precision that the network computes in."""
        ...


class Network(ABC):
    """A base model and what a run trains in it."""

    base: LoadedBase
    adapter: Trained
    team: Team = Team()
    """The processes that share the run's steps."""
    by_kernels = False
    """Whether kernels of our own compute all of its layers."""
    written_beside = True
    """Whether a checkpoint's content can be copied first and written while steps go on."""

    @property
    def model(self) -> PreTrainedModel:
        return self.base.model

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files of the tune as they are published, made from the masters."""

    def published(self, folder: Path) -> Network:
        """The network with the published files in `folder`, for the record of parity."""
        self.load_files(folder, into_masters=False)
        return self

    @abstractmethod
    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        """Computes with the published files in `folder` from now on; with `into_masters` the run
        goes on from them."""

    def join(self, team: Team) -> None:
        """Shares the run's steps with the processes of `team`."""
        self.team = team

    def optimizer(self, spec: OptimizerSpec) -> AdamW:
        """What moves the masters."""
        return AdamW(spec, self.adapter.masters)

    def contents(self, optimizer: AdamW, *, still: bool = True) -> dict[str, Pieces]:
        """The files of a checkpoint: the tune as it is published, the masters, the moments. With
        `still` they are of this moment, whatever happens before they are read."""

        def held(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone() if still else tensor

        return {
            **{name: (raw,) for name, raw in self.files().items()},
            MASTERS: flat_file({"masters": held(self.adapter.masters)}),
            OPTIMIZER: flat_file(
                {"first": held(optimizer.first), "second": held(optimizer.second)}
            ),
        }

    def take_up(self, folder: Path, optimizer: AdamW) -> None:
        """Goes on from the masters and moments of the checkpoint in `folder`."""
        masters = load((folder / MASTERS).read_bytes())["masters"]
        moments = load((folder / OPTIMIZER).read_bytes())
        self.adapter.masters.copy_(masters)
        optimizer.first.copy_(moments["first"])
        optimizer.second.copy_(moments["second"])
        self.adapter.refresh()

    def prepare(
        self,
        rows: Rows,
        folder: Path,  # noqa: ARG002
        interrupted: Callable[[], bool],  # noqa: ARG002
    ) -> Rows:
        """What can be computed once for all epochs, kept in `folder`; the rows that know of it."""
        return rows

    def make_bin(self, rows: Rows, packed: Bin, masks: Masks) -> BinTensors:
        """Tensors for the rows of one bin."""
        return make_bin(rows, packed, masks)

    def logits(self, tensors: BinTensors) -> torch.Tensor:
        """Logits `[K, V]` at the kept positions."""
        out = self.model(
            input_ids=tensors.ids_1T,
            position_ids=tensors.positions_1T,
            use_cache=False,
            logits_to_keep=tensors.keep_K,
            afina_ctx=tensors.context,
        )
        logits: torch.Tensor = out.logits
        return logits.view(logits.shape[1:])  # picking [0] would copy the gradient

    def loss(
        self, tensors: BinTensors, learned: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The bin's part of the mean loss and of the token accuracy over `learned` tokens, and the
        loss of each kept position `[K]`."""
        weights = tensors.weights_K / max(learned, 1)
        return summed_loss(self.logits(tensors), tensors.targets_K, weights)


class _Unset:
    """Stands for the adapter while the layers that it needs are being found."""

    def delta(self, name: str, x: torch.Tensor) -> torch.Tensor | None:
        raise RuntimeError(f"{name} was called before its adapter was set ({tuple(x.shape)})")


class TrainedNetwork(Network):
    """A frozen base with LoRA layers."""

    def __init__(self, base: LoadedBase, spec: LoraSpec, seed: int, base_id: str = "") -> None:
        self.base = base
        self.config = self._config(spec, base_id)
        names = put_lora_layers(self.model, spec.target_modules, _Unset())
        layers = {name: self._layer(name) for name in names}
        dtype = next(self.model.parameters()).dtype
        linears = {n: m.base for n, m in layers.items()}
        self.adapter: TrainedAdapter = self._adapter(linears, spec, dtype, seed)
        for layer in layers.values():
            layer.set_adapters(self.adapter)
        fuse_frozen(self.model)
        fused = fuse_blocks(self.model, self.adapter)
        headed = fuse_head(self.model)
        self.by_kernels = fused.own == self.base.layers
        self._exact = headed and self.by_kernels

    def make_bin(self, rows: Rows, packed: Bin, masks: Masks) -> BinTensors:
        """See Network. Kernels of our own are not made for a shape, so nothing is padded."""
        return make_bin(rows, packed, masks, exact=self._exact)

    def _config(self, spec: LoraSpec, base_id: str) -> AdapterConfig:
        return AdapterConfig.of(spec, base_id)

    def _adapter(
        self, linears: dict[str, nn.Linear], spec: LoraSpec, dtype: torch.dtype, seed: int
    ) -> TrainedAdapter:
        return TrainedAdapter(linears, spec, dtype, seed)

    def _layer(self, name: str) -> LoraLinear:
        module: nn.Module = self.model.get_submodule(name)
        if not isinstance(module, LoraLinear):
            raise TypeError(f"{name} is no LoRA layer")
        return module

    def files(self) -> dict[str, bytes]:
        """PEFT's two files."""
        return {WEIGHTS: adapter_bytes(self.adapter.publish()), CONFIG: self.config.to_bytes()}

    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        """See Network."""
        _, pairs = read_adapter(folder / CONFIG, folder / WEIGHTS)
        if into_masters:
            self.adapter.start_from(pairs)
        else:
            self.adapter.load_published(pairs)


class DoraNetwork(TrainedNetwork):
    """A frozen base with LoRA layers whose output rows have a learned length."""

    adapter: DoraAdapter

    def _config(self, spec: LoraSpec, base_id: str) -> AdapterConfig:
        return AdapterConfig.of(spec, base_id, dora=True)

    def _adapter(
        self, linears: dict[str, nn.Linear], spec: LoraSpec, dtype: torch.dtype, seed: int
    ) -> DoraAdapter:
        return DoraAdapter(linears, spec, dtype, seed)

    def files(self) -> dict[str, bytes]:
        """PEFT's two files."""
        raw = adapter_bytes(self.adapter.publish(), self.adapter.magnitudes())
        return {WEIGHTS: raw, CONFIG: self.config.to_bytes()}

    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        """See Network."""
        _, pairs, magnitudes = read_dora(folder / CONFIG, folder / WEIGHTS)
        if into_masters:
            self.adapter.start_from_tune(pairs, magnitudes)
        else:
            self.adapter.load_tune(pairs, magnitudes)
