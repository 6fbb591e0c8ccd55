"""Attention over a bin: many chats in one flat tensor, each seeing itself alone.

The chats of a group (afina.model.folding) are a few batched products, with the query heads of a key
head folded into rows; forward and backward are written by hand. Long chats go through torch's fused
kernel instead. The gradient through a shared prefix is the sum over the chats that share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional

from afina.domain.foresight import FUSED_FROM
from afina.model.folding import Group, Masks, Places, Span, group_spans
from afina.model.grids import Grids, Heads
from afina.model.kernels.attention import Jobs

__all__ = ["FUSED_FROM", "Masks", "PackedContext", "group_spans"]


@dataclass(frozen=True)
class How:
    """What a layer says about its attention."""

    scaling: float
    window: int | None
    softcap: float | None


@dataclass
class PackedContext:
    """The `afina_ctx` of one bin. The chats of all groups stand one behind another from place 0."""

    capacity: int
    groups: tuple[Group, ...]
    masks: Masks = field(repr=False)
    _grids: dict[Heads, Grids] = field(default_factory=dict, init=False, repr=False)
    _jobs: dict[int | None, Jobs] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def places(self) -> Places:
        """Where tokens go inside a layer."""
        return Places(self.groups, self.capacity)

    def grids(self, heads: Heads) -> Grids:
        """Where the heads of tokens go inside a layer."""
        if heads not in self._grids:
            self._grids[heads] = Grids(self.groups, self.capacity, heads)
        return self._grids[heads]

    def jobs(self, window: int | None) -> Jobs:
        """The bin's attention as kernels of our own take it."""
        if window not in self._jobs:
            self._jobs[window] = Jobs.of(self.groups, window)
        return self._jobs[window]

    def attend(  # noqa: PLR0913
        self,
        layer: int,  # noqa: ARG002
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        *,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """See afina.model.attention.AttentionContext."""
        how = How(scaling, sliding_window, softcap)
        out: torch.Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]
            q_1HTD, k_1GTD, v_1GTD, self, how
        )
        return out


class _PackedAttention(torch.autograd.Function):
    """Attention of all groups of a bin, from flat tensors to a flat tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        q_1HTD: torch.Tensor,
        k_1GTD: torch.Tensor,
        v_1GTD: torch.Tensor,
        packed: PackedContext,
        how: How,
    ) -> torch.Tensor:
        wanted = any(ctx.needs_input_grad[:3])
        ctx.packed, ctx.how, ctx.kept = packed, how, []
        places = packed.places
        parts = []
        kept: Kept | FusedKept
        for number, group in enumerate(packed.groups):
            q = places.rows(q_1HTD[0], number, group)
            k, v = (places.keys(x[0], number, group) for x in (k_1GTD, v_1GTD))
            if group.key_length >= FUSED_FROM and how.softcap is None:
                mask = long_mask(packed.masks, group, how, q.dtype)
                part, kept = fused(q, k, v, mask, how, wanted=wanted)
            else:
                mask = packed.masks.get(group, how.window, q.dtype, q.shape[1] // k.shape[1])
                part, kept = _multiplied(q, k, v, mask, how)
            parts.append(part)
            if wanted:
                ctx.kept.append(kept)
        if not parts:
            return q_1HTD.new_zeros(*q_1HTD.shape[:3], v_1GTD.shape[3]).transpose(1, 2)
        return places.flat(parts).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_HTD = grads[0][0].transpose(0, 1)
        packed: PackedContext = ctx.packed
        of_queries: list[torch.Tensor] = []
        of_keys: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        shared: list[tuple[Span, list[torch.Tensor]]] = []
        for number, (group, kept) in enumerate(zip(packed.groups, ctx.kept, strict=True)):
            grad_CHLD = packed.places.grads(grad_HTD, number, group)
            pull = fused_back if isinstance(kept, FusedKept) else _multiplied_back
            of_q, *parts = pull(kept, grad_CHLD, ctx.how)
            before = group.prefix[1]
            of_queries.append(of_q)
            for found, part in zip(of_keys, parts, strict=True):
                found.append(part[:, :, before : before + group.length])
            if before:
                sums = [part[:, :, :before].sum(0, dtype=torch.float32) for part in parts]
                shared.append((group.prefix, sums))
        ctx.kept = []
        flats = [packed.places.flat(parts) for parts in (of_queries, *of_keys)]
        # after all of them: the prefix is a chat of some group too
        for (start, tokens), sums in shared:
            for flat, total_GPD in zip(flats[1:], sums, strict=True):
                flat[start : start + tokens] += total_GPD.transpose(0, 1)
        return (*(flat.transpose(0, 1).unsqueeze(0) for flat in flats), None, None)


@dataclass
class Kept:
    """What the backward pass of `multiply` needs."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    chances: torch.Tensor
    capped: torch.Tensor | None
    """tanh of the scores over the cap, where there is one."""


def multiply(
    q_BRD: torch.Tensor,
    k_BMD: torch.Tensor,
    v_BMD: torch.Tensor,
    mask_RM: torch.Tensor,
    how: How,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Kept]:
    """softmax(scale q kᵀ + mask) v, as products over chats and key heads with R = H / G * L rows;
    into `out` if there is one."""
    capped = None
    scores = torch.bmm(q_BRD, k_BMD.transpose(1, 2))
    if how.softcap is None:
        torch.add(mask_RM, scores, alpha=how.scaling, out=scores)
    else:
        capped = scores.mul_(how.scaling / how.softcap).tanh_()
        scores = torch.add(mask_RM, capped, alpha=how.softcap)
    chances = torch.softmax(scores, -1)
    done = torch.bmm(chances, v_BMD) if out is None else torch.bmm(chances, v_BMD, out=out)
    return done, Kept(q_BRD, k_BMD, v_BMD, chances, capped)


def multiply_back(
    kept: Kept,
    grad_BRD: torch.Tensor,
    how: How,
    outs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of q, k and v; into `outs` if there are any."""
    of_q, of_k, of_v = outs or (torch.empty_like(x) for x in (kept.q, kept.k, kept.v))
    chances = kept.chances
    torch.bmm(chances.transpose(1, 2), grad_BRD, out=of_v)
    of_chances = torch.bmm(grad_BRD, kept.v.transpose(1, 2))
    of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
    of_scores.mul_(how.scaling)
    if kept.capped is not None:
        of_scores.addcmul_(of_scores * kept.capped, kept.capped, value=-1)
    torch.bmm(of_scores, kept.k, out=of_q)
    torch.bmm(of_scores.transpose(1, 2), kept.q, out=of_k)
    return of_q, of_k, of_v


def _multiplied(
    q_CHLD: torch.Tensor,
    k_CGMD: torch.Tensor,
    v_CGMD: torch.Tensor,
    mask_RM: torch.Tensor,
    how: How,
) -> tuple[torch.Tensor, Kept]:
    chats, heads, length, _ = q_CHLD.shape
    batch, keys = chats * k_CGMD.shape[1], k_CGMD.shape[2]
    q = q_CHLD.reshape(batch, mask_RM.shape[0], -1)
    k, v = k_CGMD.reshape(batch, keys, -1), v_CGMD.reshape(batch, keys, -1)
    out, kept = multiply(q, k, v, mask_RM, how)
    return out.view(chats, heads, length, -1), kept


def _multiplied_back(
    kept: Kept, grad_CHLD: torch.Tensor, how: How
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    chats, heads, length, _ = grad_CHLD.shape
    batch, rows, keys = kept.chances.shape
    of_q, of_k, of_v = multiply_back(kept, grad_CHLD.reshape(batch, rows, -1), how)
    in_grid = (chats, batch // chats, keys, -1)
    return of_q.view(chats, heads, length, -1), of_k.view(in_grid), of_v.view(in_grid)


@dataclass
class FusedKept:
    """What the backward pass of `fused` needs: its inputs, and its output with torch's graph."""

    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    out: torch.Tensor


def long_mask(masks: Masks, group: Group, how: How, dtype: torch.dtype) -> torch.Tensor | None:
    """None where plain causality says it all."""
    windowed = how.window is not None and how.window < group.key_length
    return masks.get(group, how.window, dtype, 1) if windowed or group.prefix[1] else None


def fused(
    q_CHLD: torch.Tensor,
    k_CGMD: torch.Tensor,
    v_CGMD: torch.Tensor,
    mask_LM: torch.Tensor | None,
    how: How,
    *,
    wanted: bool,
) -> tuple[torch.Tensor, FusedKept]:
    """The same by torch's own kernel, which keeps no probabilities."""
    with torch.set_grad_enabled(wanted):
        q, k, v = (x.detach().requires_grad_(wanted) for x in (q_CHLD, k_CGMD, v_CGMD))
        out = functional.scaled_dot_product_attention(
            q, k, v, mask_LM, is_causal=mask_LM is None, scale=how.scaling, enable_gqa=True
        )
    return out.detach(), FusedKept((q, k, v), out)


def fused_back(
    kept: FusedKept,
    grad_CHLD: torch.Tensor,
    how: How,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of q, k and v."""
    of_q, of_k, of_v = torch.autograd.grad(kept.out, kept.inputs, grad_CHLD)
    return of_q, of_k, of_v
