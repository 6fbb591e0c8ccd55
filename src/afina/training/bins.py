"""From rows to tensors of fixed shapes: what the network is called with for one bin.

Logits are computed only where a learned token follows; their number is padded to a few fixed
counts with positions of weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from afina.model.packed import Masks, PackedContext, group_spans
from afina.training.packing import Bin


class Rows(Protocol):
    """What the loop needs of shards: tokenised rows by number."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]: ...

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class BinTensors:
    """One call of the network and the loss."""

    ids_1T: torch.Tensor
    positions_1T: torch.Tensor
    keep_K: torch.Tensor
    targets_K: torch.Tensor
    weights_K: torch.Tensor
    """1 for a learned token, 0 for padding."""
    learned: int
    context: PackedContext


def padded_learned(count: int, capacity: int) -> int:
    """How many positions get logits: one of a few counts, never more than the bin has."""
    step = 32 if count <= 256 else 64 if count <= 512 else 128
    return min(capacity, max(step, -(-count // step) * step))


def learned_counts(rows: Rows) -> NDArray[np.int64]:
    """Learned tokens of each row."""
    counts = (int(rows.row(index)[1][1:].sum()) for index in range(len(rows)))
    return np.fromiter(counts, dtype=np.int64, count=len(rows))


def make_bin(rows: Rows, packed: Bin, masks: Masks) -> BinTensors:
    """Tensors for the rows of one bin, in their order. The first token of a row has nothing before
    it and is never learned."""
    ids = np.zeros(packed.capacity, dtype=np.int64)
    positions = np.zeros(packed.capacity, dtype=np.int64)
    spans: list[tuple[int, int]] = []
    keep: list[NDArray[np.int64]] = []
    start = 0
    for number in packed.rows:
        row_ids, learned = rows.row(number)
        end = start + len(row_ids)
        ids[start:end] = row_ids
        positions[start:end] = np.arange(len(row_ids))
        keep.append(np.flatnonzero(learned[1:]).astype(np.int64) + start)
        spans.append((start, len(row_ids)))
        start = end
    return _tensors(ids, positions, np.concatenate(keep), spans, masks)


def _tensors(
    ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    keep: NDArray[np.int64],
    spans: Sequence[tuple[int, int]],
    masks: Masks,
) -> BinTensors:
    capacity = len(ids)
    count = padded_learned(len(keep), capacity)
    kept = np.zeros(count, dtype=np.int64)
    kept[: len(keep)] = keep
    targets = np.zeros(count, dtype=np.int64)
    targets[: len(keep)] = ids[keep + 1]
    weights = np.zeros(count, dtype=np.float32)
    weights[: len(keep)] = 1
    return BinTensors(
        ids_1T=torch.from_numpy(ids)[None],
        positions_1T=torch.from_numpy(positions)[None],
        keep_K=torch.from_numpy(kept),
        targets_K=torch.from_numpy(targets),
        weights_K=torch.from_numpy(weights),
        learned=len(keep),
        context=PackedContext(capacity, group_spans(spans, capacity), masks),
    )
