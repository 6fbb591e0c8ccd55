"""Loss and token accuracy on validation rows: a rotating batch at intervals, the whole file at the
ends of epochs. Dropout is off; nothing learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afina.model.packed import Masks
from afina.training.bins import Rows, plan_bins
from afina.training.network import Network
from afina.training.packing import epoch_order

_ORDER_KEY = 1 << 40


def batch_rows(rows: int, size: int, seed: int, number: int) -> tuple[int, ...]:
    """The rows of the `number`-th validation batch: turns through the file in a fixed order."""
    order = epoch_order(rows, seed, _ORDER_KEY)
    start = number * size
    return tuple(sorted({int(order[(start + i) % rows]) for i in range(min(size, rows))}))


def evaluate(
    network: Network, rows: Rows, chosen: Sequence[int], capacities: Sequence[int]
) -> tuple[float, float]:
    """Mean loss and accuracy over the learned tokens of the chosen rows; 0 and 0 without any."""
    masks = Masks()
    loss = right = 0.0
    learned = 0
    with torch.no_grad():
        for packed in plan_bins(rows, chosen, capacities):
            tensors = network.make_bin(rows, packed, masks)
            part_loss, part_right, _ = network.loss(tensors, 1)
            loss += float(part_loss)
            right += float(part_right)
            learned += tensors.learned
    return loss / max(learned, 1), right / max(learned, 1)
