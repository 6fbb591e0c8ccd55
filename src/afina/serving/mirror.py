"""What was gathered for decoding rows, kept from step to step.

Attention reads a row's keys and values in one piece; gathering them from their blocks anew for
every token costs as much as attending. So the pieces of decoding rows are kept and a step adds one
position to each; only rows with a new sequence, or a longer context than there is room for, are
gathered again. The blocks stay the truth: this may be dropped at any step.
"""

from __future__ import annotations

import torch

from afina.serving.layout import Group, Layout
from afina.serving.sequences import Sequence


class KeptRows:
    """The kept keys and values of one group, layer by layer, `[rows * G, context, D]`."""

    def __init__(self, rows: int, context: int) -> None:
        self.rows = rows
        self.context = context
        self.stale_rows: list[int] = []
        """Rows to gather again in this step."""
        self._owners: list[tuple[Sequence, int] | None] = [None] * rows
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._starts = torch.empty(0, dtype=torch.long)
        self._stale = torch.empty(0, dtype=torch.long)
        self._places: dict[int, torch.Tensor] = {}

    def begin(self, group: Group) -> None:
        """Tells of a step: who is in which row, and where the new positions go."""
        self.stale_rows = [
            i for i, row in group.real() if self._owners[i] != (row.sequence, row.start)
        ]
        self._owners = [None if row is None else (row.sequence, row.stop) for row in group.members]
        self._starts = torch.tensor([0 if row is None else row.start for row in group.members])
        self._stale = torch.tensor(self.stale_rows, dtype=torch.long)
        self._places = {}

    def is_new(self, layer: int) -> bool:
        """Whether nothing is kept for the layer yet."""
        return layer not in self._layers

    def keep(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keeps what was gathered for all rows."""
        self._layers[layer] = k, v

    def renew(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Puts what was gathered for the stale rows in their places."""
        for kept, new in zip(self._layers[layer], (k, v), strict=True):
            kept.view(self.rows, -1).index_copy_(0, self._stale, new.view(len(self._stale), -1))

    def extend(
        self, layer: int, k_NGD: torch.Tensor, v_NGD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the step's position to each row; all that is kept."""
        heads = k_NGD.shape[1]
        places = self._places.get(heads)
        if places is None:
            rows = torch.arange(self.rows * heads).view(self.rows, heads)
            places = (rows * self.context + self._starts[:, None]).flatten()
            self._places[heads] = places
        kept_k, kept_v = self._layers[layer]
        kept_k.view(-1, kept_k.shape[-1]).index_copy_(0, places, k_NGD.flatten(0, 1))
        kept_v.view(-1, kept_v.shape[-1]).index_copy_(0, places, v_NGD.flatten(0, 1))
        return kept_k, kept_v


class Mirror:
    """The kept rows of all groups that decode, within a limit of positions."""

    def __init__(self, limit_tokens: int) -> None:
        self._limit = limit_tokens
        self._kinds: dict[int, KeptRows] = {}

    def prepare(self, layout: Layout) -> dict[int, KeptRows]:
        """What is kept for each decoding group of a step, by the class of its contexts."""
        before, self._kinds = self._kinds, {}
        room = self._limit
        for group in layout.groups:
            room -= group.rows * group.context
            if group.kind is None or room < 0:
                continue
            kept = before.get(group.kind)
            if kept is None or (kept.rows, kept.context) != (group.rows, group.context):
                kept = KeptRows(group.rows, group.context)
            kept.begin(group)
            self._kinds[group.kind] = kept
        return self._kinds
