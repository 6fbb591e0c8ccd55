"""The paged cache and attention over it: the context that the engine gives to the network.

Keys and values of a layer lie in blocks; a sequence's blocks are listed in order in its table. A
step writes its new positions to their places and attends group by group (afina.serving.layout):
blocks gathered, then two batched products with the query heads of a key head folded into rows.
Sums run over the same places in the same order whatever the padding, so that in bf16 a row's
result does not depend on its company to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from afina.serving.layout import Group, Layout
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
        """Keys and values of a layer, `[G, blocks, block_tokens, D]`, shaped by the first use."""
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
                tensor[:, target] = tensor[:, source]

    def _fresh(self, like: torch.Tensor) -> torch.Tensor:
        # numpy's zeros come from the system untouched; values must be finite where masked.
        heads, size = like.shape[1], like.shape[-1]
        count = heads * self._blocks * self.block_tokens * size
        raw = torch.from_numpy(np.zeros(count * like.element_size(), dtype=np.uint8))
        return raw.view(like.dtype).view(heads, self._blocks, self.block_tokens, size)


class StepContext:
    """`afina_ctx` of one step."""

    def __init__(self, cache: KvCache, layout: Layout, mirror: Mirror, dtype: torch.dtype) -> None:
        self._cache = cache
        self._tokens = layout.tokens
        kept = mirror.prepare(layout)
        self._groups = [
            _GroupContext(group, cache, dtype, kept.get(group.offset)) for group in layout.groups
        ]
        ids, positions, slots = _places(layout, cache)
        self.ids = torch.tensor([ids])
        self.positions = torch.tensor([positions])
        self._slots = torch.tensor(slots)

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
        keys, values = self._cache.layer(layer, k_1GTD, v_1GTD)
        keys.flatten(1, 2).index_copy_(1, self._slots, k_1GTD[0])
        values.flatten(1, 2).index_copy_(1, self._slots, v_1GTD[0])
        heads, kv_heads = q_1HTD.shape[1], k_1GTD.shape[1]
        q_GRTD = q_1HTD.view(kv_heads, heads // kv_heads, self._tokens, -1)
        shape = _Shape(layer, scaling, sliding_window, softcap)
        if len(self._groups) == 1 and self._groups[0].positions == self._tokens:
            k, v = self._groups[0].gather(layer, (keys, k_1GTD[0]), (values, v_1GTD[0]))
            return self._groups[0].attend(q_GRTD, k, v, shape).unsqueeze(0)
        out_THD = q_1HTD.new_zeros(self._tokens, heads, v_1GTD.shape[-1])
        for group in self._groups:
            part = slice(group.offset, group.offset + group.positions)
            k, v = group.gather(layer, (keys, k_1GTD[0][:, part]), (values, v_1GTD[0][:, part]))
            out_THD[part] = group.attend(q_GRTD[:, :, part], k, v, shape)
        return out_THD.unsqueeze(0)


@dataclass(frozen=True)
class _Shape:
    """What a layer asks of its attention."""

    layer: int
    scaling: float
    window: int | None
    softcap: float | None


class _GroupContext:
    """Tables and masks of one group, the same for all layers."""

    def __init__(
        self, group: Group, cache: KvCache, dtype: torch.dtype, kept: KeptRows | None
    ) -> None:
        self._kept = kept
        self.offset = group.offset
        self.positions = group.positions
        self._rows, self._width, self._context = group.rows, group.width, group.context
        self._dtype = dtype
        self._table = torch.tensor(_table(group, cache))
        blocks = group.context // cache.block_tokens
        if kept is not None and kept.stale_rows:
            table = self._table.view(group.rows, blocks)
            self._stale_table = table[torch.tensor(kept.stale_rows)].flatten()
        self._queries = torch.tensor(_query_positions(group)).view(group.rows, group.width)
        self._masks: dict[tuple[int | None, int, int], torch.Tensor] = {}

    def gather(
        self,
        layer: int,
        keys: tuple[torch.Tensor, torch.Tensor],
        values: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows' keys and values, `[G * rows, context, D]`, given a layer's blocks (already
        written) and the step's new ones."""
        shape = keys[0].shape[0] * self._rows, self._context, -1
        if self._kept is None or self._kept.is_new(layer):
            k, v = (blocks.index_select(1, self._table) for blocks, _ in (keys, values))
            if self._kept is not None:
                self._kept.keep(layer, k.view(shape), v.view(shape))
            return k.view(shape), v.view(shape)
        if self._kept.stale_rows:
            k, v = (blocks.index_select(1, self._stale_table) for blocks, _ in (keys, values))
            self._kept.renew(layer, k, v)
        return self._kept.extend(layer, keys[1], values[1])

    def attend(
        self, q_GRTD: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: _Shape
    ) -> torch.Tensor:
        """`[rows * width, H, D]`."""
        kv_heads, ratio = q_GRTD.shape[:2]
        n, w = self._rows, self._width
        q = q_GRTD.reshape(kv_heads, ratio, n, w, -1).permute(0, 2, 3, 1, 4)
        q = q.reshape(kv_heads * n, w * ratio, -1)
        k = k.transpose(1, 2)
        mask = self._mask(shape.window, kv_heads, ratio)
        if shape.softcap is None:
            scores = torch.baddbmm(mask, q, k, alpha=shape.scaling)
        else:
            scores = torch.bmm(q, k).mul_(shape.scaling / shape.softcap).tanh_()
            scores = scores.mul_(shape.softcap).add_(mask)
        out = torch.bmm(torch.softmax(scores, -1), v)
        out = out.view(kv_heads, n, w, ratio, -1).permute(1, 2, 0, 3, 4)
        return out.reshape(n * w, kv_heads * ratio, -1)

    def _mask(self, window: int | None, kv_heads: int, ratio: int) -> torch.Tensor:
        key = (window, kv_heads, ratio)
        found = self._masks.get(key)
        if found is not None:
            return found
        places = torch.arange(self._context)
        queries = self._queries[:, :, None]
        allowed = places <= queries
        if window is not None:
            allowed &= places > queries - window
        mask = torch.zeros(allowed.shape, dtype=self._dtype).masked_fill_(~allowed, -torch.inf)
        mask = mask[None, :, :, None, :].expand(kv_heads, -1, -1, ratio, -1)
        found = mask.reshape(kv_heads * self._rows, self._width * ratio, self._context)
        self._masks[key] = found
        return found


def _table(group: Group, cache: KvCache) -> list[int]:
    blocks = group.context // cache.block_tokens
    table: list[int] = []
    for row in group.members:
        own = [] if row is None else row.sequence.blocks[:blocks]
        table += own + [cache.padding] * (blocks - len(own))
    return table


def _query_positions(group: Group) -> list[int]:
    positions: list[int] = []
    for row in group.members:
        if row is None:
            positions += [0] * group.width
        else:
            positions += range(row.start, row.stop)
            positions += [row.stop - 1] * (group.width - row.length)
    return positions


def _places(layout: Layout, cache: KvCache) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions and cache places of a step's positions, padding included."""
    ids, positions, slots = [], [], []
    size = cache.block_tokens
    nowhere = cache.padding * size
    for group in layout.groups:
        positions += _query_positions(group)
        for row in group.members:
            length = 0 if row is None else row.length
            if row is not None:
                blocks = row.sequence.blocks
                ids += row.sequence.ids(row.start, row.stop)
                slots += [blocks[p // size] * size + p % size for p in range(row.start, row.stop)]
            ids += [0] * (group.width - length)
            slots += [nowhere] * (group.width - length)
    rest = layout.tokens - len(ids)
    return ids + [0] * rest, positions + [0] * rest, slots + [nowhere] * rest
