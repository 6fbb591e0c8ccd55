"""From rows to tensors of fixed shapes: what the network is called with for one bin.

Logits are computed only where a learned token follows; their number is padded to a few fixed
counts with positions of weight 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from afina.model.folding import NOTHING, Group, Span
from afina.model.packed import Masks, PackedContext, group_spans
from afina.training.packing import Bin, Family
from afina.training.planning import Rows, needed_tokens, plan_bins

__all__ = [
    "BinTensors",
    "Rows",
    "learned_counts",
    "make_bin",
    "needed_tokens",
    "padded_learned",
    "plan_bins",
]


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


def make_bin(rows: Rows, packed: Bin, masks: Masks, *, exact: bool = False) -> BinTensors:
    """Tensors for the rows of one bin, in their order. The first token of a row has nothing before
    it and is never learned; what stands behind its last learned token is left out. `exact` leaves
    out the padding, for networks to whom a new shape costs nothing."""
    families = packed.families or (Family(0, packed.rows),)
    size = sum(_needed(rows, family) for family in families) if exact else packed.capacity
    builder = _Builder(size, exact)
    groups: list[Group] = []
    capacity = None if any(family.shared for family in families) else size
    alone: list[Span] = []
    for family in families:
        prefix = NOTHING
        if family.shared:
            prefix = builder.add(rows.row(family.rows[0])[0][: family.shared], 0)
            alone.append(prefix)
        spans = [builder.add_row(rows, row, family.shared) for row in family.rows]
        if family.shared:
            groups += group_spans(spans, None, prefix)
        else:
            alone += [span for span in spans if span[1]]
    groups += group_spans(alone, capacity) if alone else ()
    return builder.tensors(PackedContext(size, tuple(groups), masks))


def _needed(rows: Rows, family: Family) -> int:
    """The tokens of a family that are computed."""
    counts = (needed_tokens(rows.row(number)[1])[0] for number in family.rows)
    return family.shared + sum(max(0, count - family.shared) for count in counts)


class _Builder:
    """Writes rows one behind another."""

    def __init__(self, capacity: int, exact: bool) -> None:
        self.exact = exact
        self.ids = np.zeros(capacity, dtype=np.int64)
        self.positions = np.zeros(capacity, dtype=np.int64)
        self.keep: list[NDArray[np.int64]] = []
        self.targets: list[NDArray[np.int32]] = []
        self.used = 0

    def add(self, ids: NDArray[np.int32], position: int) -> Span:
        """Puts tokens down, the first one at `position` of its chat."""
        start, end = self.used, self.used + len(ids)
        self.ids[start:end] = ids
        self.positions[start:end] = np.arange(position, position + len(ids))
        self.used = end
        return (start, len(ids))

    def add_row(self, rows: Rows, number: int, shared: int) -> Span:
        """Puts down what a row needs behind its first `shared` tokens."""
        ids, learned = rows.row(number)
        count, _ = needed_tokens(learned)
        places = np.flatnonzero(learned[1:])
        self.keep.append(places + (self.used - shared))
        self.targets.append(ids[places + 1])
        return self.add(ids[shared:count], shared)

    def tensors(self, context: PackedContext) -> BinTensors:
        """What the network and the loss are called with."""
        keep, targets = np.concatenate(self.keep), np.concatenate(self.targets)
        count = len(keep) if self.exact else padded_learned(len(keep), context.capacity)
        kept, targeted = np.zeros((2, count), dtype=np.int64)
        weights = np.zeros(count, dtype=np.float32)
        kept[: len(keep)], targeted[: len(keep)], weights[: len(keep)] = keep, targets, 1
        return BinTensors(
            ids_1T=torch.from_numpy(self.ids)[None],
            positions_1T=torch.from_numpy(self.positions)[None],
            keep_K=torch.from_numpy(kept),
            targets_K=torch.from_numpy(targeted),
            weights_K=torch.from_numpy(weights),
            learned=len(keep),
            context=context,
        )
