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
    """The kept keys and values of one group, layer by layer, `[G * rows, context, D]`."""

    def __init__(self, rows: int, context: int) -> None:
        self.rows = rows
        self.context = context
        self.stale_rows: list[int] = []
        """Rows to gather again in this step."""
        self._owners: list[tuple[Sequence, int] | None] = [None] * rows
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._places = torch.empty(0, dtype=torch.long)
        self._stale = torch.empty(0, dtype=torch.long)

    def begin(self, group: Group) -> None:
        """Tells of a step: who is in which row, and where the new positions go."""
        starts = [0 if row is None else row.start for row in group.members]
        self.stale_rows = [
            i for i, row in group.real() if self._owners[i] != (row.sequence, row.start)
        ]
        self._owners = [None if row is None else (row.sequence, row.stop) for row in group.members]
        places = [i * self.context + start for i, start in enumerate(starts)]
        self._places = torch.tensor(places)
        self._stale = torch.tensor(self.stale_rows, dtype=torch.long)

    def is_new(self, layer: int) -> bool:
        """Whether nothing is kept for the layer yet."""
        return layer not in self._layers

    def keep(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keeps what was gathered for all rows."""
        self._layers[layer] = k, v

    def renew(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Puts what was gathered for the stale rows in their places."""
        for kept, new in zip(self._layers[layer], (k, v), strict=True):
            heads = kept.shape[0] // self.rows
            rows = kept.view(heads, self.rows, self.context, -1)
            rows.index_copy_(
                1, self._stale, new.view(heads, len(self.stale_rows), self.context, -1)
            )

    def extend(
        self, layer: int, k_GTD: torch.Tensor, v_GTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the step's position to each row; all that is kept."""
        for kept, new in zip(self._layers[layer], (k_GTD, v_GTD), strict=True):
            kept.view(new.shape[0], self.rows * self.context, -1).index_copy_(1, self._places, new)
        return self._layers[layer]


class Mirror:
    """The kept rows of all groups that decode, within a limit of positions."""

    def __init__(self, limit_tokens: int) -> None:
        self._limit = limit_tokens
        self._kinds: dict[int, KeptRows] = {}

    def prepare(self, layout: Layout) -> dict[int, KeptRows]:
        """What is kept for each decoding group of a step, by the group's offset."""
        before, self._kinds = self._kinds, {}
        found: dict[int, KeptRows] = {}
        room = self._limit
        for group in layout.groups:
            room -= group.rows * group.context
            if group.kind is None or room < 0:
                continue
            kept = before.get(group.kind)
            if kept is None or (kept.rows, kept.context) != (group.rows, group.context):
                kept = KeptRows(group.rows, group.context)
            kept.begin(group)
            self._kinds[group.kind] = found[group.offset] = kept
        return found
