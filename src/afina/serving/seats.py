"""How rows find their adapters: the batch's adapters side by side, and who sits where.

Each adapter in the batch has one or more *slots*: its matrices lie in one block with those of the
others. Decoding rows are *seated*: every slot takes the same number of rows, so that two batched
products compute the low-rank terms of all of them, reading each adapter once. Chunks of prompts
multiply with their slot alone. Rows of the base sit nowhere and are left as they are. Ranks are
padded with zeros, which add exactly nothing: a row's bits don't depend on who else is seated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from afina.serving.adapters import Adapter, AdapterBank
from afina.serving.layout import Layout

RANK_STEP = 16
ROWS_A_SLOT = (2, 4, 8, 16, 32, 64)
"""Never one: products of a single row sum in another order."""
_COST_OF_A_ROW = 0.1
"""Of computing a row, in terms of reading an adapter once."""


@dataclass(frozen=True)
class Seating:
    """Where a step's rows sit. Plain numbers."""

    slots: list[str]
    """The adapters of slots 0, 1, …, for decoding rows."""
    alone: dict[str, int]
    """Slots after those, for adapters that only chunks use."""
    rows_a_slot: int
    seated: list[int]
    """Rows with an adapter."""
    seats: list[int]
    """The seat of each of `seated`: slot * rows_a_slot + place."""

    def slot_of(self, adapter: str) -> int:
        """A slot that holds `adapter`."""
        return self.alone[adapter] if adapter in self.alone else self.slots.index(adapter)


def seat(
    adapters: Sequence[str | None], chunks: Sequence[str], existing: Sequence[str | None]
) -> Seating:
    """Seats decoding rows, given each row's adapter (None: the base), and finds slots for what
    chunks use. Whoever has a slot among `existing` keeps it where that is possible."""
    counts = Counter(name for name in adapters if name is not None)
    rows_a_slot = min(ROWS_A_SLOT, key=lambda size: _cost(counts, size))
    slots = _kept_in_place(
        Counter({name: -(-count // rows_a_slot) for name, count in counts.items()}), existing
    )
    free = [s * rows_a_slot + place for s in range(len(slots)) for place in range(rows_a_slot)]
    of_adapter: dict[str, list[int]] = {}
    for place in reversed(free):
        of_adapter.setdefault(slots[place // rows_a_slot], []).append(place)
    seated = [row for row, name in enumerate(adapters) if name is not None]
    seats = [of_adapter[name].pop() for name in adapters if name is not None]
    alone = _alone(sorted(set(chunks) - set(slots)), len(slots), existing)
    return Seating(slots, alone, rows_a_slot, seated, seats)


def _kept_in_place(wanted: Counter[str], existing: Sequence[str | None]) -> list[str]:
    left = wanted.copy()
    slots: list[str | None] = [None] * wanted.total()
    for slot, name in enumerate(existing[: len(slots)]):
        if name is not None and left[name] > 0:
            slots[slot] = name
            left[name] -= 1
    rest = iter(sorted(left.elements()))
    return [next(rest) if name is None else name for name in slots]


def _alone(names: list[str], first: int, existing: Sequence[str | None]) -> dict[str, int]:
    found = {
        name: slot for slot, name in enumerate(existing) if slot >= first and name in names and name
    }
    slot = first
    for name in names:
        while slot in found.values():
            slot += 1
        found.setdefault(name, slot)
    return found


def _cost(counts: Counter[str], rows_a_slot: int) -> float:
    slots = sum(-(-count // rows_a_slot) for count in counts.values())
    return slots * (1.0 + rows_a_slot * _COST_OF_A_ROW)


@dataclass(eq=False)
class _Site:
    """A product's matrices, slot by slot: A of all its layers, B by layer."""

    names: list[str]
    in_features: int
    sizes: list[int]
    a: torch.Tensor | None = None
    """`[slots, layers * rank, in]`; None while no adapter in the batch touches the product."""
    b: list[torch.Tensor] = field(default_factory=list)
    """By layer `[slots, rank, out]`."""


@dataclass(frozen=True)
class _Chunk:
    start: int
    stop: int
    slot: int


@dataclass(frozen=True)
class _Step:
    """What a step's products need."""

    slots: int
    rows_a_slot: int
    rows: torch.Tensor | None
    """The row in each seat; empty seats repeat row 0."""
    seated: torch.Tensor | None
    seats: torch.Tensor | None
    chunks: list[_Chunk]


class Seats:
    """The adapters of the batch, side by side."""

    def __init__(self, bank: AdapterBank, dtype: torch.dtype) -> None:
        self._bank = bank
        self._dtype = dtype
        self._sites: dict[str, _Site] = {}
        self._slots: list[str | None] = []
        self._rank = 0
        self._step: _Step | None = None

    def know(self, names: list[str], in_features: int, sizes: list[int]) -> None:
        """Tells of a product and its layers; once, before any adapter."""
        self._sites[names[0]] = _Site(names, in_features, sizes)

    def choose(self, layout: Layout) -> None:
        """Makes ready for a step: its adapters into slots, its rows to their seats."""
        decodes: list[str | None] = []
        chunks: list[tuple[int, int, str]] = []
        for group in layout.groups:
            names = [None if r is None else r.sequence.prompt.adapter for r in group.members]
            if group.kind is not None:
                decodes += names
                continue
            for index, name in enumerate(names):
                start = group.offset + index * group.width
                if name is not None:
                    chunks.append((start, start + group.width, name))
        seating = seat(decodes, [name for _, _, name in chunks], self._slots)
        if not seating.slots and not seating.alone:
            self._step = None
            return
        self._arrange(
            {**dict(enumerate(seating.slots)), **{s: n for n, s in seating.alone.items()}}
        )
        found = [_Chunk(start, stop, seating.slot_of(name)) for start, stop, name in chunks]
        self._step = _step(seating, found)

    def discard(self, sha256: str) -> None:
        """Wipes an adapter that no row uses any more."""
        for slot, name in enumerate(self._slots):
            if name == sha256:
                self._put(Adapter("", 0, {}), slot)
                self._slots[slot] = None

    def add_to(self, out: torch.Tensor, first: str, x: torch.Tensor) -> None:
        """Adds the low-rank terms for input `x` to the output of the product whose first layer
        is `first`, in place."""
        step = self._step
        if step is None:
            return
        site = self._sites[first]
        if site.a is None:
            return
        x_TI, out_TO = x.view(-1, site.in_features), out.view(-1, sum(site.sizes))
        if step.rows is not None:
            self._add_to_rows(site, step, x_TI, out_TO)
        for chunk in step.chunks:
            self._add_to_chunk(site, chunk, x_TI, out_TO)

    def _add_to_rows(
        self, site: _Site, step: _Step, x_TI: torch.Tensor, out_TO: torch.Tensor
    ) -> None:
        assert site.a is not None
        assert step.rows is not None
        assert step.seated is not None
        assert step.seats is not None
        slots, rank = step.slots, self._rank
        x = x_TI.index_select(0, step.rows).view(slots, step.rows_a_slot, -1)
        low = torch.bmm(x, site.a[:slots].transpose(1, 2))
        high = out_TO.index_select(0, step.rows).view(slots, step.rows_a_slot, -1)
        start = 0
        for place, (size, b) in enumerate(zip(site.sizes, site.b, strict=True)):
            part = low[:, :, place * rank : (place + 1) * rank]
            high[:, :, start : start + size].baddbmm_(part, b[:slots])
            start += size
        high = high.view(slots * step.rows_a_slot, -1)
        out_TO.index_copy_(0, step.seated, high.index_select(0, step.seats))

    def _add_to_chunk(
        self, site: _Site, chunk: _Chunk, x_TI: torch.Tensor, out_TO: torch.Tensor
    ) -> None:
        assert site.a is not None
        rank = self._rank
        low = torch.nn.functional.linear(x_TI[chunk.start : chunk.stop], site.a[chunk.slot])
        start = 0
        for place, (size, b) in enumerate(zip(site.sizes, site.b, strict=True)):
            part = low[:, place * rank : (place + 1) * rank]
            out_TO[chunk.start : chunk.stop, start : start + size].addmm_(part, b[chunk.slot])
            start += size

    # -- slots ---------------------------------------------------------------------------------

    def _arrange(self, wanted: dict[int, str]) -> None:
        """Puts adapters into the slots where they are wanted."""
        rank = max(self._bank.get(name).rank for name in wanted.values())
        rank = -(-rank // RANK_STEP) * RANK_STEP
        if rank > self._rank or max(wanted) >= len(self._slots):
            self._grow(max(rank, self._rank), max(wanted) + 1)
        for slot, name in wanted.items():
            if self._slots[slot] != name:
                self._put(self._bank.get(name), slot)

    def _grow(self, rank: int, slots: int) -> None:
        self._rank = rank
        self._slots = [None] * (1 << max(0, slots - 1).bit_length())
        for site in self._sites.values():
            site.a, site.b = None, []

    def _blank(self, site: _Site) -> None:
        slots, columns = len(self._slots), len(site.sizes) * self._rank
        site.a = torch.zeros(slots, columns, site.in_features, dtype=self._dtype)
        site.b = [torch.zeros(slots, self._rank, n, dtype=self._dtype) for n in site.sizes]

    def _put(self, adapter: Adapter, slot: int) -> None:
        self._slots[slot] = adapter.sha256
        for site in self._sites.values():
            if site.a is None and any(name in adapter.pairs for name in site.names):
                self._blank(site)
            if site.a is None:
                continue
            for place, name in enumerate(site.names):
                a = site.a[slot, place * self._rank : (place + 1) * self._rank]
                b = site.b[place][slot]
                if name not in adapter.pairs or adapter.rank < self._rank:
                    a.zero_()
                    b.zero_()
                if name in adapter.pairs:
                    own_a, own_b = adapter.pairs[name]
                    a[: adapter.rank] = own_a
                    b[: adapter.rank] = own_b.t()


def _step(seating: Seating, chunks: list[_Chunk]) -> _Step:
    if not seating.slots:
        return _Step(0, 0, None, None, None, chunks)
    rows = [0] * (len(seating.slots) * seating.rows_a_slot)
    for row, place in zip(seating.seated, seating.seats, strict=True):
        rows[place] = row
    return _Step(
        slots=len(seating.slots),
        rows_a_slot=seating.rows_a_slot,
        rows=torch.tensor(rows),
        seated=torch.tensor(seating.seated),
        seats=torch.tensor(seating.seats),
        chunks=chunks,
    )
