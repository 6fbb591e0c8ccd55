"""The adapters in memory as the products read them: pages of sixteen ranks in one table a layer.

A's columns and B's rows lie in tables over all pages. A position that was sampled finds its own
adapter's rows there by index, as words find their embeddings: `x A` is the sum of A's rows weighted
by x, and what follows the sum of B's rows weighted by that. So a step reads what its rows need and
nothing else, in the order of one row whatever its company, and packs nothing anew. Prompts are many
positions of one adapter: they multiply with their pages as matrices (afina.serving.pieces). Which
way a position takes depends on whether it was prompted or sampled alone, so that its bits never
change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from afina.model.kernels.pack_adapter import Packing
from afina.model.kernels.touch import touch
from afina.serving.layout import Span
from afina.serving.memory import untouched
from afina.serving.page_shapes import RANKS, Pairs, Shape, kernel_pages, scaled, table_pages
from afina.serving.pieces import Round, rounds_of, weighted_sums


@dataclass(frozen=True)
class Written:
    """An adapter's part of one product, ready to be copied into its pages."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True)
class WrittenRow:
    """An adapter in the table's own order, ready to be copied in one piece."""

    row: torch.Tensor
    """By page; as far as the table's columns that it touches."""
    firsts: frozenset[str]
    """The products that it touches, by their first layers."""


Ready = Mapping[str, Written] | WrittenRow
"""An adapter on its way into pages: by product, or packed."""


@dataclass(eq=False)
class _Site:
    """A product and its tables."""

    names: list[str]
    shape: Shape
    a: torch.Tensor
    b: torch.Tensor
    users: set[str] = field(default_factory=set)
    """Adapters in memory that touch the product."""
    soiled: set[int] = field(default_factory=set)
    """Pages that are not zero."""
    columns: tuple[int, int] = (0, 0)
    """Packed: where A and B begin in a page of the table."""

    def __post_init__(self) -> None:
        self.hold(self.a, self.b)

    def hold(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Takes tables; their rows, as lookups name them, are looked at once and not in every
        step."""
        self.a, self.b = a, b
        if a.is_contiguous() and b.is_contiguous():
            self.a_rows, self.b_rows = a.flatten(0, 1), b.flatten(0, 2)

    @property
    def layer_of_block(self) -> list[int]:
        return self.shape.layer_of_block

    @property
    def is_usual(self) -> bool:
        """Whether adapters touch it as a rule: not the head, which stands last."""
        return self.names[0] != "lm_head"


@dataclass(frozen=True)
class _Lookups:
    """Where a step's sampled positions find their rows in products of one shape."""

    a_rows: torch.Tensor
    a_starts: torch.Tensor
    b_rows: torch.Tensor
    b_starts: torch.Tensor
    weights: torch.Tensor | None
    """Which sums of A weigh B's rows, block by block; None: all in order."""


@dataclass
class _Step:
    """What a step's products need."""

    owners: tuple[str | None, ...]
    """The adapter of each sampled position, from the first."""
    adapters: set[str]
    bags: torch.Tensor | None
    """The position of each sum over A; None: one each, in order."""
    lookups: dict[Shape, _Lookups]
    rounds: list[Round]
    """The prompts' positions and pages."""
    prompted: set[str]
    """The adapters of prompts."""


class Pages:
    """Tables for all products of one base."""

    def __init__(self, dtype: torch.dtype, pages: int) -> None:
        self._dtype = dtype
        self._total = pages
        self._free = list(range(pages - 1, -1, -1))
        self._sites: dict[str, _Site] = {}
        self._pages: dict[str, list[int]] = {}
        self._step: _Step | None = None
        self._seen: tuple[tuple[str | None, ...], _Step] | None = None
        self._packed = False
        self._table: torch.Tensor | None = None
        """Packed: all pages, one behind the other."""
        self._used = 0
        """Of a page, what adapters of all layers but the head take."""
        self.version = 0
        """Raised when pages or tables change."""

    @property
    def used_bytes(self) -> int:
        """What the pages of adapters take."""
        shapes = [site.shape for site in self._sites.values()]
        parts = [part for s in shapes for part in (s.packed if self._packed else s.table)]
        page = sum(map(math.prod, parts)) * self._dtype.itemsize
        return (self._total - len(self._free)) * page

    def pack(self) -> None:
        """From now on pages are laid out for the kernels; before any adapter."""
        if self._pages:
            raise RuntimeError("adapters are in pages already")
        self._packed = True
        for site, tables in self._fresh_tables(self._total):
            site.hold(*tables)

    def touch_next(self, rank: int) -> None:
        """Takes the memory of the pages that an adapter will get next, so that the steps do not
        wait for it. Any thread may: no number changes."""
        table = self._table
        if table is not None:
            count = -(-rank // RANKS)
            for page in self._free[-count:]:
                if page < len(table):
                    touch(table[page, : self._used])

    def pages_of(self, sha256: str) -> list[int]:
        """Where an adapter is; in the order of its ranks."""
        return self._pages[sha256]

    def tables_of(self, first: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        """For the kernels: A and B of the product whose first layer is `first`, by page; None where
        no adapter in memory touches it."""
        site = self._sites[first]
        return (site.a, site.b) if self._packed and site.users else None

    def know(self, names: list[str], in_features: int, sizes: list[int]) -> None:
        """Tells of a product and its layers; once, before any adapter."""
        shape = Shape(in_features, tuple(sizes))
        a, b = self._tables(shape, self._total)
        self._sites[names[0]] = _Site(names, shape, a, b)

    def write(self, pairs: Pairs, rank: int, scaling: float = 1.0) -> Ready:
        """An adapter as pages hold it; its B times `scaling`. Reads nothing that changes: any
        thread may."""
        if self._packed:
            return self._write_packed(pairs, rank, scaling)
        pairs, found = scaled(pairs, scaling, self._dtype), {}
        for first, site in self._sites.items():
            if any(name in pairs for name in site.names):
                pages = table_pages(pairs, rank, site.names, site.shape, self._dtype)
                found[first] = Written(*pages)
        return found

    def put(self, sha256: str, rank: int, written: Ready) -> None:
        """Copies an adapter into pages of its own."""
        if sha256 in self._pages:
            return
        count = -(-rank // RANKS)
        if count > len(self._free):
            self._grow(count)
        pages = self._pages[sha256] = [self._free.pop() for _ in range(count)]
        self.version += 1
        if isinstance(written, WrittenRow):
            self._put_row(sha256, pages, written)
            return
        for first, site in self._sites.items():
            part = written.get(first)
            for index, page in enumerate(pages):
                if part is not None:
                    site.a[page] = part.a[index]
                    site.b[page] = part.b[index]
                    site.soiled.add(page)
                else:
                    _clean(site, page)
            if part is not None:
                site.users.add(sha256)

    def discard(self, sha256: str) -> None:
        """Frees an adapter's pages; no row may use it any more."""
        self._free += self._pages.pop(sha256, [])
        self._seen = None
        self.version += 1
        for site in self._sites.values():
            site.users.discard(sha256)

    def choose(self, sampled: Sequence[str | None], spans: Sequence[Span]) -> None:
        """Makes ready for a step: the adapter of each sampled position, and prompts' spans."""
        key = tuple(sampled)
        if self._seen is None or self._seen[0] != key:
            self._seen = key, self._looked_up(key)
        step = self._seen[1]
        step.rounds = rounds_of([(s.start, s.stop, self._pages[s.adapter]) for s in spans])
        step.prompted = {s.adapter for s in spans}
        self._step = step if step.adapters or spans else None

    def add_to(self, out: torch.Tensor, first: str, x: torch.Tensor) -> None:
        """Adds the low-rank terms for input `x` to the output of the product whose first layer
        is `first`, in place."""
        step = self._step
        if step is None:
            return
        site = self._sites[first]
        if not site.users:
            return
        x_TI = x.view(-1, site.shape.in_features)
        out_TO = out.view(-1, sum(site.shape.sizes))
        if not step.adapters.isdisjoint(site.users):
            self._add_to_sampled(site, step, x_TI, out_TO)
        if not step.prompted.isdisjoint(site.users):
            for together in step.rounds:
                together.add_to(out_TO, x_TI, site)

    def _add_to_sampled(
        self, site: _Site, step: _Step, x_TI: torch.Tensor, out_TO: torch.Tensor
    ) -> None:
        shape = site.shape
        found = step.lookups.get(shape)
        if found is None:
            found = step.lookups[shape] = self._lookups(shape, step)
        n = len(step.owners)
        x = x_TI[:n] if step.bags is None else x_TI.index_select(0, step.bags)
        low = weighted_sums(site.a_rows, found.a_rows, found.a_starts, x.reshape(-1))
        if found.weights is not None:
            low = low.view(-1, RANKS).index_select(0, found.weights)
        high = weighted_sums(site.b_rows, found.b_rows, found.b_starts, low.view(-1))
        (out_TO if n == out_TO.shape[0] else out_TO[:n]).add_(high.view(n, -1))

    # -- lookups -------------------------------------------------------------------------------

    def _looked_up(self, sampled: tuple[str | None, ...]) -> _Step:
        bags = [p for p, name in enumerate(sampled) if name for _ in self._pages[name]]
        in_order = bags == list(range(len(sampled)))
        names = {name for name in sampled if name is not None}
        return _Step(sampled, names, None if in_order else torch.tensor(bags), {}, [], set())

    def _lookups(self, shape: Shape, step: _Step) -> _Lookups:
        owned = [[] if name is None else self._pages[name] for name in step.owners]
        pages = [page for own in owned for page in own]
        blocks, layers = len(shape.layer_of_block), len(shape.sizes)
        tables: list[int] = []
        weights: list[int] = []
        starts: list[int] = []
        bag = 0
        for own in owned:
            for block, layer in enumerate(shape.layer_of_block):
                starts.append(len(tables) * RANKS)
                tables += [page * blocks + block for page in own]
                weights += [(bag + k) * layers + layer for k in range(len(own))]
            bag += len(own)
        columns = torch.arange(shape.in_features, dtype=torch.int32)
        ranks = torch.arange(RANKS, dtype=torch.int32)
        a_rows = torch.tensor(pages, dtype=torch.int32)[:, None] * shape.in_features + columns
        b_rows = torch.tensor(tables, dtype=torch.int32)[:, None] * RANKS + ranks
        in_order = weights == list(range(len(pages) * layers))
        return _Lookups(
            a_rows=a_rows.flatten(),
            a_starts=torch.arange(len(pages), dtype=torch.int32) * shape.in_features,
            b_rows=b_rows.flatten(),
            b_starts=torch.tensor(starts, dtype=torch.int32),
            weights=None if in_order else torch.tensor(weights),
        )

    # -- packed --------------------------------------------------------------------------------

    def _write_packed(self, pairs: Pairs, rank: int, scaling: float) -> WrittenRow:
        touched = {
            first: site
            for first, site in self._sites.items()
            if any(name in pairs for name in site.names)
        }
        table, pages = self._table, -(-rank // RANKS)
        assert table is not None
        usual = all(site.is_usual for site in touched.values())
        row = untouched(self._dtype, pages, self._used if usual else table.shape[1])
        by_kernels = Packing.takes(row) and all(
            side.dtype == torch.bfloat16 for pair in pairs.values() for side in pair
        )
        if not by_kernels:
            pairs, scaling = scaled(pairs, scaling, self._dtype), 1.0
        packing = Packing(rank, scaling)
        for site in touched.values():
            a, b = (
                row[:, start : start + math.prod(part)].view(pages, *part)
                for start, part in zip(site.columns, site.shape.packed, strict=True)
            )
            if by_kernels:
                for name, place, sixteens in site.shape.places(site.names):
                    if name in pairs:
                        packing.add(*pairs[name], a[:, place], b[:, sixteens])
            else:
                for side, made in zip(
                    (a, b),
                    kernel_pages(pairs, rank, site.names, site.shape, self._dtype),
                    strict=True,
                ):
                    side.copy_(made)
        packing.run()
        return WrittenRow(row, frozenset(touched))

    def _put_row(self, sha256: str, pages: list[int], written: WrittenRow) -> None:
        table, width = self._table, written.row.shape[1]
        assert table is not None
        for index, page in enumerate(pages):
            table[page, :width] = written.row[index]
        for first, site in self._sites.items():
            if site.columns[0] < width:
                site.soiled.update(pages)
            else:
                for page in pages:
                    _clean(site, page)
            if first in written.firsts:
                site.users.add(sha256)

    # -- tables --------------------------------------------------------------------------------

    def _tables(self, shape: Shape, pages: int) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = shape.table
        return untouched(self._dtype, pages, *a), untouched(self._dtype, pages, *b)

    def _fresh_tables(
        self, pages: int
    ) -> Iterator[tuple[_Site, tuple[torch.Tensor, torch.Tensor]]]:
        """Empty tables for all sites. Packed, they are columns of one: all that a page has lies in
        one place, so that an adapter takes its own size of memory and comes in quickly."""
        sites = list(self._sites.values())
        if not self._packed:
            yield from ((site, self._tables(site.shape, pages)) for site in sites)
            return
        sizes = [[math.prod(part) for part in site.shape.packed] for site in sites]
        table = self._table = untouched(self._dtype, pages, sum(map(sum, sizes)))
        self._used = sum(
            sum(pair) for pair, site in zip(sizes, sites, strict=True) if site.is_usual
        )
        columns = iter(torch.split(table, [n for pair in sizes for n in pair], 1))
        start = 0
        for site, (of_a, of_b) in zip(sites, sizes, strict=True):
            site.columns = start, start + of_a
            start += of_a + of_b
            a, b = (next(columns).view(pages, *part) for part in site.shape.packed)
            yield site, (a, b)

    def _grow(self, at_least: int) -> None:
        before = self._total
        self._total = max(before * 2, before + at_least)
        self._free = [*range(self._total - 1, before - 1, -1), *self._free]
        self.version += 1
        for site, (a, b) in self._fresh_tables(self._total):
            for page in site.soiled:
                a[page] = site.a[page]
                b[page] = site.b[page]
            site.hold(a, b)


def _clean(site: _Site, page: int) -> None:
    """Leaves nothing of who had a page before."""
    if page in site.soiled:
        site.a[page].zero_()
        site.b[page].zero_()
        site.soiled.discard(page)
