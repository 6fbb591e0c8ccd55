"""Networks whose own weights are tuned: all of them, or those of the top blocks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from afina.domain.manifests import OWN_WEIGHTS
from afina.domain.runs import RunSpec
from afina.model.base import LoadedBase
from afina.model.fused import fuse_head
from afina.model.halves import Halves
from afina.model.own_block import fuse_own_blocks
from afina.model.own_weights import (
    OwnWeights,
    all_parameters,
    read_weights,
    top_parameters,
    weights_bytes,
)
from afina.model.packed import Masks
from afina.training.bins import BinTensors, Rows, make_bin, plan_bins
from afina.training.frozen import FrozenBin, FrozenRows, fill
from afina.training.network import Network
from afina.training.packing import Bin


class FullNetwork(Network):
    """Every weight of a base is tuned."""

    def __init__(self, base: LoadedBase) -> None:
        self.base = base
        self.adapter: OwnWeights = OwnWeights(all_parameters(base.model))
        self._fuse()

    def _fuse(self) -> None:
        self._places = fuse_own_blocks(self.base.model, self.adapter)
        self.by_kernels = self._places.by_kernels == self.base.layers
        fuse_head(self.base.model)

    def logits(self, tensors: BinTensors) -> torch.Tensor:
        """See Network."""
        with self._places.of(tensors.keep_K, tensors.ids_1T.shape[1]):
            return super().logits(tensors)

    def files(self) -> dict[str, bytes]:
        """weights.safetensors."""
        return {OWN_WEIGHTS: weights_bytes(self.adapter.published())}

    def load_files(self, folder: Path, *, into_masters: bool) -> None:
        """See Network."""
        self.adapter.load(read_weights(folder / OWN_WEIGHTS), into_masters=into_masters)


class TopNetwork(FullNetwork):
    """The weights of the top blocks are tuned. What the others say about a row never changes: it
    is computed once, kept on disk, and read back in every epoch."""

    def __init__(self, base: LoadedBase, spec: RunSpec) -> None:
        self.base = base
        self._spec = spec
        tune = spec.tune
        chosen = top_parameters(base.model, tune.layers, norm_and_head=tune.norm_and_head)
        self.adapter = OwnWeights(chosen)
        self._fuse()
        self._halves = Halves(base.model, base.layers - tune.layers)

    def prepare(self, rows: Rows, folder: Path, interrupted: Callable[[], bool]) -> Rows:
        """See Network. Raises NoRoom where the disk has too little left."""
        if not self._spec.tune.keep_frozen_output or self._halves.cut == 0:
            return rows
        dtype = next(self.model.parameters()).dtype
        frozen = FrozenRows(rows, folder, self.base.hidden_size, dtype)
        fill(frozen, self._key(), self._lower, interrupted)
        return frozen

    def _key(self) -> str:
        parts = (self._spec.base.sha256, str(self._halves.cut), self._spec.precision)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _lower(self, rows: Rows, chosen: range) -> list[tuple[Bin, torch.Tensor]]:
        found = []
        masks = Masks()
        for packed in plan_bins(rows, chosen, self._spec.bin_capacities):
            tensors = make_bin(rows, packed, masks)
            one = dataclasses.replace(tensors, keep_K=tensors.keep_K[:1])
            with torch.no_grad(), self._halves.lower():
                super().logits(one)
            assert self._halves.crossing is not None
            found.append((packed, self._halves.crossing[0]))
        self._halves.crossing = None
        return found

    def make_bin(self, rows: Rows, packed: Bin, masks: Masks) -> BinTensors:
        """See Network."""
        tensors = make_bin(rows, packed, masks)
        if not isinstance(rows, FrozenRows):
            return tensors
        fields = {f.name: getattr(tensors, f.name) for f in dataclasses.fields(tensors)}
        return FrozenBin(**fields, crossing_1TH=rows.gather(packed))

    def logits(self, tensors: BinTensors) -> torch.Tensor:
        """See Network."""
        if not isinstance(tensors, FrozenBin):
            return super().logits(tensors)
        with self._halves.upper(tensors.crossing_1TH):
            return super().logits(tensors)
