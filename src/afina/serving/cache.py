"""The paged cache and attention over it: the context that the engine gives to the network.

Keys and values of a layer lie in blocks; a sequence's blocks are listed in order in its table. A
step writes its new positions to their places and attends group by group (afina.serving.layout):
blocks gathered, then two batched products with the query heads of a key head folded into rows.
Sums run over the same places in the same order whatever the padding, so that in bf16 a row's
result does not depend on its company to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afina.serving.layout import Group, Layout
from afina.serving.memory import untouched
from afina.serving.mirror import KeptRows, Mirror


class KvCache:
    """Blocks for all layers. Memory is taken when first touched; block `blocks` is padding's."""

    def __init__(self, layers: int, blocks: int, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.padding = blocks
        self.tokens = blocks * block_tokens
        self._blocks = blocks + 1
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers

    def layer(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values of a layer, `[blocks, block_tokens, G, D]`, shaped by the first use."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            keys = self._keys[layer] = self._fresh(k)
            values = self._values[layer] = self._fresh(v)
        return keys, values

    def copy(self, pairs: list[tuple[int, int]]) -> None:
        """Copies whole blocks, in order."""
        for tensor in (*self._keys, *self._values):
            if tensor is None:
                continue
            for source, target in pairs:
                tensor[target] = tensor[source]

    def _fresh(self, like_TGD: torch.Tensor) -> torch.Tensor:
        # Zeros: values must be finite where masked.
        _, heads, size = like_TGD.shape
        return untouched(like_TGD.dtype, self._blocks, self.block_tokens, heads, size)


@dataclass(frozen=True)
class Attending:
    """What a layer asks of its attention."""

    layer: int
    scaling: float
    window: int | None = None
    softcap: float | None = None


class StepContext:
    """`afina_ctx` of one step."""

    def __init__(self, cache: KvCache, layout: Layout, mirror: Mirror, dtype: torch.dtype) -> None:
        self._cache = cache
        self._tokens = layout.tokens
        kept = mirror.prepare(layout)
        self._decoding = [
            _DecodingGroup(group, cache, dtype, kept.get(group.kind))
            for group in layout.groups
            if group.kind is not None
        ]
        self._chunks = [
            _ChunkGroup(group, cache, dtype) for group in layout.groups if group.kind is None
        ]
        ids, positions, slots = _places(layout, cache)
        self.ids = torch.tensor([ids])
        self.positions = torch.tensor([positions])
        self._slots = torch.tensor(slots)
        self._out: torch.Tensor | None = None

    def attend(  # noqa: PLR0913 - the seam's signature
        self,
        layer: int,
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Writes the step's keys and values, then attends within each sequence's own context."""
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (q_1HTD, k_1GTD, v_1GTD))
        asked = Attending(layer, scaling, sliding_window, softcap)
        return self.attend_rows(q, k, v, asked).unsqueeze(0)

    def attend_rows(
        self, q_THD: torch.Tensor, k_TGD: torch.Tensor, v_TGD: torch.Tensor, asked: Attending
    ) -> torch.Tensor:
        """The same for heads side by side in each position; `[T, H, D]`."""
        keys, values = self._cache.layer(asked.layer, k_TGD, v_TGD)
        keys.view(-1, *k_TGD.shape[1:]).index_copy_(0, self._slots, k_TGD)
        values.view(-1, *v_TGD.shape[1:]).index_copy_(0, self._slots, v_TGD)
        out_THD = self._room(q_THD, v_TGD.shape[-1])
        for group in self._decoding:
            if group.rows == self._tokens:
                group.attend(q_THD, (keys, k_TGD), (values, v_TGD), asked, out_THD)
                break
            part = slice(group.offset, group.offset + group.rows)
            group.attend(
                q_THD[part], (keys, k_TGD[part]), (values, v_TGD[part]), asked, out_THD[part]
            )
        for chunks in self._chunks:
            chunks.attend(q_THD, keys, values, asked, out_THD)
        return out_THD

    def _room(self, q_THD: torch.Tensor, size: int) -> torch.Tensor:
        """Where a layer's attention is written: the next layer's takes its place. Padding stays
        zero there."""
        room = self._out
        if room is None or room.shape[1:] != (q_THD.shape[1], size):
            room = self._out = q_THD.new_zeros(self._tokens, q_THD.shape[1], size)
        return room


class _Masks:
    """What each query of a group may see, by the window of the layer."""

    def __init__(self, queries_NW: torch.Tensor, context: int, dtype: torch.dtype) -> None:
        self._queries = queries_NW
        self._context = context
        self._dtype = dtype
        self._found: dict[tuple[int | None, int, int], torch.Tensor] = {}

    def of(self, window: int | None, kv_heads: int, ratio: int) -> torch.Tensor:
        """`[N * G, W * ratio, context]`: zero or minus infinity."""
        key = (window, kv_heads, ratio)
        found = self._found.get(key)
        if found is not None:
            return found
        places = torch.arange(self._context)
        queries = self._queries[:, :, None]
        allowed = places <= queries
        if window is not None:
            allowed &= places > queries - window
        mask = torch.zeros(allowed.shape, dtype=self._dtype).masked_fill_(~allowed, -torch.inf)
        rows, width = self._queries.shape
        mask = mask[:, None, :, None, :].expand(-1, kv_heads, -1, ratio, -1)
        found = mask.reshape(rows * kv_heads, width * ratio, self._context)
        self._found[key] = found
        return found


def _attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    asked: Attending,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Two batched products over `[N * G, …]`."""
    k = k.transpose(1, 2)
    if asked.softcap is None:
        scores = torch.baddbmm(mask, q, k, alpha=asked.scaling)
    else:
        scores = torch.bmm(q, k).mul_(asked.scaling / asked.softcap).tanh_()
        scores = scores.mul_(asked.softcap).add_(mask)
    weights = torch.softmax(scores, -1)
    return torch.bmm(weights, v) if out is None else torch.bmm(weights, v, out=out)


def _gathered(blocks: torch.Tensor, table: torch.Tensor, rows: int) -> torch.Tensor:
    """`[rows * G, context, D]` from a layer's blocks."""
    _, _, heads, size = blocks.shape
    found = blocks.index_select(0, table).view(rows, -1, heads, size)
    return found.transpose(1, 2).contiguous().view(rows * heads, -1, size)


class _DecodingGroup:
    """Rows that decode: one position each, side by side in the step."""

    def __init__(
        self, group: Group, cache: KvCache, dtype: torch.dtype, kept: KeptRows | None
    ) -> None:
        self._kept = kept
        self.offset = group.offset
        self.rows = group.rows
        self._table = torch.tensor(_table(group, cache))
        if kept is not None and kept.stale_rows:
            table = self._table.view(group.rows, -1)
            self._stale_table = table[torch.tensor(kept.stale_rows)].flatten()
        self._masks = _Masks(_query_positions(group), group.context, dtype)

    def attend(
        self,
        q_NHD: torch.Tensor,
        keys: tuple[torch.Tensor, torch.Tensor],
        values: tuple[torch.Tensor, torch.Tensor],
        asked: Attending,
        out_NHD: torch.Tensor,
    ) -> None:
        """Fills `out_NHD`, given a layer's blocks (already written) and the new positions."""
        rows, heads, size = q_NHD.shape
        kv_heads = keys[1].shape[1]
        k, v = self._gather(asked.layer, keys, values)
        mask = self._masks.of(asked.window, kv_heads, heads // kv_heads)
        q = q_NHD.reshape(rows * kv_heads, heads // kv_heads, size)
        _attended(q, k, v, mask, asked, out_NHD.view(rows * kv_heads, heads // kv_heads, -1))

    def _gather(
        self,
        layer: int,
        keys: tuple[torch.Tensor, torch.Tensor],
        values: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept = self._kept
        if kept is None or kept.is_new(layer):
            k, v = (_gathered(b, self._table, self.rows) for b, _ in (keys, values))
            if kept is not None:
                kept.keep(layer, k, v)
            return k, v
        if kept.stale_rows:
            stale = len(kept.stale_rows)
            k, v = (_gathered(b, self._stale_table, stale) for b, _ in (keys, values))
            kept.renew(layer, k, v)
        return kept.extend(layer, keys[1], values[1])


class _ChunkGroup:
    """Chunks of prompts: padded to one width here, without padding in the step."""

    def __init__(self, group: Group, cache: KvCache, dtype: torch.dtype) -> None:
        self._rows, self._width = group.rows, group.width
        self._table = torch.tensor(_table(group, cache))
        self._masks = _Masks(_query_positions(group), group.context, dtype)
        taken: list[int] = []
        ours: list[int] = []
        theirs: list[int] = []
        for index, row in enumerate(group.members):
            at, length = (0, 1) if row is None else (row.at, row.length)
            taken += [at + min(place, length - 1) for place in range(group.width)]
            if row is not None:
                ours += range(index * group.width, index * group.width + length)
                theirs += range(at, at + length)
        self._taken, self._ours, self._theirs = map(torch.tensor, (taken, ours, theirs))

    def attend(
        self,
        q_THD: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        asked: Attending,
        out_THD: torch.Tensor,
    ) -> None:
        """Writes the group's part of `out_THD`."""
        n, w = self._rows, self._width
        heads, size = q_THD.shape[1:]
        kv_heads = keys.shape[2]
        ratio = heads // kv_heads
        q = q_THD.index_select(0, self._taken).view(n, w, kv_heads, ratio, size)
        q = q.transpose(1, 2).reshape(n * kv_heads, w * ratio, size)
        k, v = _gathered(keys, self._table, n), _gathered(values, self._table, n)
        mask = self._masks.of(asked.window, kv_heads, ratio)
        out = _attended(q, k, v, mask, asked)
        out = out.view(n, kv_heads, w, ratio, -1).transpose(1, 2).reshape(n * w, heads, -1)
        out_THD.index_copy_(0, self._theirs, out.index_select(0, self._ours))


def _table(group: Group, cache: KvCache) -> list[int]:
    blocks = group.context // cache.block_tokens
    table: list[int] = []
    for row in group.members:
        own = [] if row is None else row.sequence.blocks[:blocks]
        table += own + [cache.padding] * (blocks - len(own))
    return table


def _query_positions(group: Group) -> torch.Tensor:
    """`[rows, width]`: the position of each query; padding repeats one that sees something."""
    positions: list[int] = []
    for row in group.members:
        if row is None:
            positions += [0] * group.width
        else:
            positions += range(row.start, row.stop)
            positions += [row.stop - 1] * (group.width - row.length)
    return torch.tensor(positions).view(group.rows, group.width)


def _places(layout: Layout, cache: KvCache) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions and cache places of a step's positions, padding included."""
    size = cache.block_tokens
    ids, positions = [0] * layout.tokens, [0] * layout.tokens
    slots = [cache.padding * size] * layout.tokens
    for row in layout.rows():
        blocks = row.sequence.blocks
        part = slice(row.at, row.at + row.length)
        ids[part] = row.sequence.ids(row.start, row.stop)
        positions[part] = range(row.start, row.stop)
        slots[part] = [blocks[p // size] * size + p % size for p in range(row.start, row.stop)]
    return ids, positions, slots
