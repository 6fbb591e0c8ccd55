"""Attention over a bin from one flat tensor of queries, keys and values, to one flat tensor.

All rows are gathered at once to where the products of the groups want them (afina.model.grids);
results and gradients are written by the products themselves to where one gather takes them back.
The products are those of afina.model.packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afina.model.folding import Group
from afina.model.grids import Heads, Rows
from afina.model.packed import (
    FUSED_FROM,
    FusedKept,
    How,
    Kept,
    PackedContext,
    fused,
    fused_back,
    long_mask,
    multiply,
    multiply_back,
)


@dataclass
class KeptRows:
    """What the backward pass needs: of each group what its products keep."""

    groups: list[Kept | FusedKept]


def attend_rows(
    qkv_THD: torch.Tensor, context: PackedContext, heads: Heads, how: How
) -> tuple[torch.Tensor, KeptRows]:
    """The chats' attention, `[T, Q * D]`, from `[T, Q + 2 G, D]`; 0 behind the last chat."""
    grids = context.grids(heads)
    size = heads.size
    rows = qkv_THD.reshape(-1, size).index_select(0, grids.forth)
    done = rows.new_empty(grids.queries + 1, size)
    done[-1].zero_()
    kept: list[Kept | FusedKept] = []
    for one in grids.rows:
        group = one.group
        if _is_long(group, how):
            mask = long_mask(context.masks, group, how, rows.dtype)
            part, held = fused(*_in_grid(rows, one, heads), mask, how, wanted=True)
            done[one.out] = part.reshape(-1, size)
            kept.append(held)
            continue
        repeats = heads.queries // heads.keys
        mask_RM = context.masks.get(group, how.window, rows.dtype, repeats)
        q, k, v = _in_batch(rows, one, heads)
        into = done[one.out].view(q.shape)
        kept.append(multiply(q, k, v, mask_RM, how, into)[1])
    attended = done.index_select(0, grids.out_back)
    return attended.view(len(qkv_THD), heads.queries * size), KeptRows(kept)


def attend_rows_back(
    kept: KeptRows, grad: torch.Tensor, context: PackedContext, heads: Heads, how: How
) -> torch.Tensor:
    """The gradient of `[T, Q + 2 G, D]`. `grad` is `[T + 1, Q * D]`, its last row 0."""
    grids = context.grids(heads)
    size = heads.size
    grads = grad.view(-1, size).index_select(0, grids.out_forth)
    rows = grad.new_empty(grids.gathered + 1, size)
    rows[-1].zero_()
    shared: list[tuple[Group, torch.Tensor]] = []
    for one, held in zip(grids.rows, kept.groups, strict=True):
        group = one.group
        if isinstance(held, FusedKept):
            q_shape = (group.count, heads.queries, group.length, size)
            parts = fused_back(held, grads[one.out].view(q_shape), how)
            for place, part in zip((one.q, one.k, one.v), parts, strict=True):
                rows[place] = part.reshape(-1, size)
        else:
            outs = _in_batch(rows, one, heads)
            multiply_back(held, grads[one.out].view(held.q.shape), how, outs)
        if group.prefix[1]:
            of_keys = rows[one.k.start : one.v.stop]
            shape = (2, group.count, heads.keys, group.key_length, size)
            before = of_keys.view(shape)[:, :, :, : group.prefix[1]]
            shared.append((group, before.sum(1, dtype=torch.float32)))
    flat = rows.index_select(0, grids.back).view(grids.tokens, heads.all, size)
    # after all of them: the prefix is a chat of some group too
    for group, sums_2GPD in shared:
        start, tokens = group.prefix
        of_prefix = sums_2GPD.permute(2, 0, 1, 3).reshape(tokens, 2 * heads.keys, size)
        flat[start : start + tokens, heads.queries :] += of_prefix
    return flat


def _is_long(group: Group, how: How) -> bool:
    return group.key_length >= FUSED_FROM and how.softcap is None


def _in_batch(
    rows: torch.Tensor, one: Rows, heads: Heads
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A group's q, k and v by chats and key heads: `[C * G, R, D]` and twice `[C * G, M, D]`."""
    batch = one.group.count * heads.keys
    q, k, v = (rows[place].view(batch, -1, heads.size) for place in (one.q, one.k, one.v))
    return q, k, v


def _in_grid(
    rows: torch.Tensor, one: Rows, heads: Heads
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same as `[C, H, L, D]` and twice `[C, G, M, D]`."""
    group, size = one.group, heads.size
    q = rows[one.q].view(group.count, heads.queries, group.length, size)
    k, v = (
        rows[place].view(group.count, heads.keys, group.key_length, size)
        for place in (one.k, one.v)
    )
    return q, k, v
