"""Many adapters beside one base: those in memory, and those of the current batch.

`AdapterBank` keeps adapters as they were read, up to a number, and lets go of the idle and the
least recently used, never of one that a request refers to. `WorkingSet` holds the batch's
adapters side by side, so that one masked product computes the low-rank terms of all rows: a row
sees its own adapter's columns alone, a row of the base sees none. Ranks are padded with zeros;
zeros add exactly nothing, so a row's bits don't depend on who shares the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from afina.serving.layout import Layout

RANK_STEP = 16


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory: by layer name A `[rank, in]` and B `[out, rank]`, scaling folded in."""

    sha256: str
    rank: int
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


class AdapterBank:
    """The adapters in memory, least recently used first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._adapters: dict[str, Adapter] = {}
        self._used_at: dict[str, float] = {}
        self._references: Counter[str] = Counter()
        self._doomed: set[str] = set()

    @property
    def resident(self) -> list[str]:
        """Manifest hashes in memory."""
        return list(self._adapters)

    def get(self, sha256: str) -> Adapter:
        return self._adapters[sha256]

    def find(self, sha256: str) -> Adapter | None:
        """The adapter, unless it is not in memory or about to go. Safe from any thread."""
        return None if sha256 in self._doomed else self._adapters.get(sha256)

    def refer(self, sha256: str, now: float) -> None:
        """A request refers to the adapter: it stays."""
        self._references[sha256] += 1
        self._touch(sha256, now)

    def release(self, sha256: str, now: float) -> None:
        """A request that referred to the adapter has ended."""
        self._references[sha256] -= 1
        if self._references[sha256] <= 0:
            del self._references[sha256]
            if sha256 in self._doomed:
                self._drop(sha256)
                return
        if sha256 in self._adapters:
            self._touch(sha256, now)

    def add(self, adapter: Adapter, now: float) -> None:
        """Takes an adapter in; the least recently used without a request makes room."""
        self._adapters[adapter.sha256] = adapter
        self._doomed.discard(adapter.sha256)
        self._touch(adapter.sha256, now)
        for sha256 in list(self._used_at):
            if len(self._adapters) <= self.capacity:
                break
            if not self._references[sha256] and sha256 != adapter.sha256:
                self._drop(sha256)

    def drop_idle(self, before: float) -> list[str]:
        """Lets go of adapters that nobody has used since `before`."""
        idle = [s for s, at in self._used_at.items() if at < before and not self._references[s]]
        for sha256 in idle:
            self._drop(sha256)
        return idle

    def forget(self, sha256: str) -> None:
        """Lets go of an adapter now, or as soon as the requests that refer to it have ended."""
        if self._references[sha256]:
            self._doomed.add(sha256)
        elif sha256 in self._adapters:
            self._drop(sha256)

    def _touch(self, sha256: str, now: float) -> None:
        self._used_at.pop(sha256, None)
        self._used_at[sha256] = now

    def _drop(self, sha256: str) -> None:
        self._adapters.pop(sha256, None)
        self._used_at.pop(sha256, None)
        self._doomed.discard(sha256)


@dataclass(eq=False)
class _Site:
    """Where one product's low-rank terms come from: A of all its layers and all adapters, one
    below the other; B by layer."""

    in_features: int
    sizes: list[int]
    a: torch.Tensor | None = None
    """`[layers * columns, in]`."""
    b: list[torch.Tensor] | None = None
    """By layer `[columns, out]`."""


class WorkingSet:
    """The adapters of the batch, side by side, and who uses which."""

    def __init__(self, bank: AdapterBank, dtype: torch.dtype) -> None:
        self._bank = bank
        self._dtype = dtype
        self._sites: dict[str, _Site] = {}
        self._names: dict[str, list[str]] = {}
        self._slots: list[str | None] = []
        self._rank = 0
        self._mask: torch.Tensor | None = None

    def know(self, names: list[str], in_features: int, sizes: list[int]) -> None:
        """Tells of a product and its layers; once, before any adapter."""
        self._sites[names[0]] = _Site(in_features, sizes)
        self._names[names[0]] = names

    def choose(self, layout: Layout) -> None:
        """Makes ready for a step: its adapters side by side, its rows' mask."""
        wanted = {row.sequence.prompt.adapter for group in layout.groups for row in group.members}
        adapters = sorted(name for name in wanted if name is not None)
        if not adapters:
            self._mask = None
            return
        self._arrange(adapters)
        self._mask = self._rows_mask(layout)

    def discard(self, sha256: str) -> None:
        """Wipes an adapter that no row uses any more."""
        if sha256 in self._slots:
            self._put(Adapter("", 0, {}), self._slots.index(sha256))
            self._slots[self._slots.index("")] = None

    def add_to(self, out: torch.Tensor, names: list[str], x: torch.Tensor) -> None:
        """Adds the low-rank terms for input `x` to a product's output, in place."""
        if self._mask is None:
            return
        site = self._sites[names[0]]
        if site.a is None or site.b is None:
            return
        columns = self._mask.shape[1]
        low = torch.nn.functional.linear(x.view(-1, site.in_features), site.a)
        rows = out.view(-1, sum(site.sizes))
        start = 0
        for place, (size, b) in enumerate(zip(site.sizes, site.b, strict=True)):
            part = low[:, place * columns : (place + 1) * columns] * self._mask
            rows[:, start : start + size].addmm_(part, b)
            start += size

    def _rows_mask(self, layout: Layout) -> torch.Tensor:
        slots = [-1] * layout.tokens
        for group in layout.groups:
            for index, row in enumerate(group.members):
                adapter = row.sequence.prompt.adapter
                if adapter is not None:
                    start = group.offset + index * group.width
                    slots[start : start + row.length] = [self._slots.index(adapter)] * row.length
        rows = torch.tensor(slots).unsqueeze(1)
        mask = (rows == torch.arange(len(self._slots))).to(self._dtype)
        return mask.repeat_interleave(self._rank, dim=1)

    def _arrange(self, adapters: list[str]) -> None:
        """Puts the wanted adapters into slots; those that are there stay where they are."""
        rank = max(self._bank.get(name).rank for name in adapters)
        rank = -(-rank // RANK_STEP) * RANK_STEP
        size = 1 << (len(adapters) - 1).bit_length()
        if rank > self._rank or not size <= len(self._slots) <= 2 * size:
            self._rank = rank
            self._slots = [None] * size
            for names, site in ((self._names[n], s) for n, s in self._sites.items()):
                if any(name in self._bank.get(a).pairs for a in adapters for name in names):
                    self._blank(site)
                else:
                    site.a = site.b = None
        missing = [name for name in adapters if name not in self._slots]
        free = [i for i, name in enumerate(self._slots) if name not in adapters]
        for name, slot in zip(missing, free, strict=False):
            self._put(self._bank.get(name), slot)

    def _blank(self, site: _Site) -> None:
        columns = len(self._slots) * self._rank
        site.a = torch.zeros(len(site.sizes) * columns, site.in_features, dtype=self._dtype)
        site.b = [torch.zeros(columns, size, dtype=self._dtype) for size in site.sizes]

    def _put(self, adapter: Adapter, slot: int) -> None:
        self._slots[slot] = adapter.sha256
        columns = len(self._slots) * self._rank
        first = slot * self._rank
        for key, site in self._sites.items():
            names = self._names[key]
            if site.a is None and any(name in adapter.pairs for name in names):
                self._blank(site)
            if site.a is None or site.b is None:
                continue
            for place, name in enumerate(names):
                a = site.a[place * columns + first : place * columns + first + self._rank]
                b = site.b[place][first : first + self._rank]
                a.zero_()
                b.zero_()
                if name in adapter.pairs:
                    own_a, own_b = adapter.pairs[name]
                    a[: adapter.rank] = own_a
                    b[: adapter.rank] = own_b.t()
