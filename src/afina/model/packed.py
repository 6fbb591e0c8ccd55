"""Attention over a bin: many chats in one flat tensor, each seeing itself alone.

Inside a layer the chats of a bin are laid side by side, padded to one length a group, with the
query heads of a key head folded into rows, so that a group is two batched products. Long chats go
through torch's fused kernel instead. Padding lies behind a chat's last token, where causality
hides it. Masks go by difference of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.nn import functional

_FUSED_FROM: Final = 768
_SHARE_OF_LONGEST: Final = 0.7
_COUNTS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def padded_length(length: int) -> int:
    """The length that a chat is padded to inside attention: one of a few."""
    for step, limit in ((32, 256), (64, 512), (128, 1024)):
        if length <= limit:
            return -(-length // step) * step
    return -(-length // 256) * 256


def _padded_count(count: int) -> int:
    return next((c for c in _COUNTS if c >= count), count)


@dataclass(frozen=True)
class Group:
    """Chats of a bin that are padded to one length: (start, tokens) of each."""

    length: int
    spans: tuple[tuple[int, int], ...]
    whole: bool
    """The bin is this one chat: nothing has to be moved."""

    @property
    def count(self) -> int:
        return 1 if self.whole else _padded_count(len(self.spans))


def group_spans(spans: Sequence[tuple[int, int]], capacity: int) -> tuple[Group, ...]:
    """Groups of chats of similar length, so that little padding is multiplied."""
    if len(spans) == 1:
        return (Group(capacity, tuple(spans), whole=True),)
    groups: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda s: (-s[1], s[0])):
        if groups and padded_length(span[1]) >= _SHARE_OF_LONGEST * padded_length(groups[-1][0][1]):
            groups[-1].append(span)
        else:
            groups.append([span])
    return tuple(Group(padded_length(g[0][1]), tuple(g), whole=False) for g in groups)


def causal_mask(length: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """0 where position i may see position j, minus infinity elsewhere; `[length, length]`."""
    position = torch.arange(length)
    distance = position[:, None] - position[None, :]
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return torch.zeros(length, length, dtype=dtype).masked_fill_(~seen, float("-inf"))


class Masks:
    """Masks by length and window, made once; `repeats` query heads share one key head."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int | None, torch.dtype, int], torch.Tensor] = {}

    def get(
        self, length: int, window: int | None, dtype: torch.dtype, repeats: int
    ) -> torch.Tensor:
        if window is not None and window >= length:
            window = None
        key = (length, window, dtype, repeats)
        if key not in self._made:
            self._made[key] = causal_mask(length, window, dtype).repeat(repeats, 1)
        return self._made[key]


class _FoldedAttention(torch.autograd.Function):
    """softmax(scale q kᵀ + mask) v over `[B, R, D]` and `[B, L, D]`, probabilities kept."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BRD: torch.Tensor,
        k_BLD: torch.Tensor,
        v_BLD: torch.Tensor,
        mask_RL: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        scores = torch.baddbmm(
            mask_RL.expand(q_BRD.shape[0], -1, -1), q_BRD, k_BLD.transpose(1, 2), alpha=scale
        )
        chances = torch.softmax(scores, -1)
        ctx.save_for_backward(q_BRD, k_BLD, v_BLD, chances)
        ctx.scale = scale
        return torch.bmm(chances, v_BLD)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q_BRD, k_BLD, v_BLD, chances = ctx.saved_tensors
        (grad_BRD,) = grads
        grad_v = torch.bmm(chances.transpose(1, 2), grad_BRD)
        grad_chances = torch.bmm(grad_BRD, v_BLD.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_chances, chances, -1, chances.dtype)
        grad_scores.mul_(ctx.scale)
        grad_q = torch.bmm(grad_scores, k_BLD)
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q_BRD)
        return grad_q, grad_k, grad_v, None, None


@dataclass
class PackedContext:
    """The `afina_ctx` of one bin."""

    capacity: int
    groups: tuple[Group, ...]
    masks: Masks = field(repr=False)

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
        how = (scaling, sliding_window, softcap)
        if self.groups[0].whole:
            return self._attend_group(q_1HTD, k_1GTD, v_1GTD, how).transpose(1, 2)
        parts = []
        for group in self.groups:
            q, k, v = (
                _Fold.apply(x[0], group)  # type: ignore[no-untyped-call]
                for x in (q_1HTD, k_1GTD, v_1GTD)
            )
            parts.append(self._attend_group(q, k, v, how))
        flat_THD: torch.Tensor = _Unfold.apply(  # type: ignore[no-untyped-call]
            q_1HTD.shape[2], self.groups, *parts
        )
        return flat_THD.unsqueeze(0)

    def _attend_group(
        self,
        q_CHLD: torch.Tensor,
        k_CGLD: torch.Tensor,
        v_CGLD: torch.Tensor,
        how: tuple[float, int | None, float | None],
    ) -> torch.Tensor:
        scaling, window, softcap = how
        length = q_CHLD.shape[2]
        chats, heads, _, _ = q_CHLD.shape
        groups = k_CGLD.shape[1]
        repeats = heads // groups
        if softcap is None and length >= _FUSED_FROM:
            mask = None
            if window is not None and window < length:
                mask = self.masks.get(length, window, q_CHLD.dtype, 1)
            return functional.scaled_dot_product_attention(
                q_CHLD, k_CGLD, v_CGLD, mask, is_causal=mask is None, scale=scaling, enable_gqa=True
            )
        mask = self.masks.get(length, window, q_CHLD.dtype, repeats)
        q = q_CHLD.reshape(chats * groups, repeats * length, -1)
        k = k_CGLD.reshape(chats * groups, length, -1)
        v = v_CGLD.reshape(chats * groups, length, -1)
        if softcap is None:
            out: torch.Tensor = _FoldedAttention.apply(  # type: ignore[no-untyped-call]
                q, k, v, mask, scaling
            )
        else:
            scores = torch.tanh(torch.bmm(q, k.transpose(1, 2)) * (scaling / softcap)) * softcap
            out = torch.bmm(torch.softmax(scores + mask, -1), v)
        return out.view(chats, heads, length, -1)


class _Fold(torch.autograd.Function):
    """The chats of a group, of a flat `[H, T, D]`, as `[C, H, L, D]` with padding 0."""

    @staticmethod
    def forward(ctx: Any, x_HTD: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        ctx.tokens = x_HTD.shape[1]
        return _folded(x_HTD, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        flat_THD = grad.new_zeros(ctx.tokens, grad.shape[1], grad.shape[3])
        _put_back(grad, ctx.group, flat_THD)
        return flat_THD.transpose(0, 1), None


class _Unfold(torch.autograd.Function):
    """The flat `[T, H, D]` from the groups' `[C, H, L, D]`; padding stays 0."""

    @staticmethod
    def forward(
        ctx: Any, tokens: int, groups: tuple[Group, ...], *parts: torch.Tensor
    ) -> torch.Tensor:
        ctx.groups = groups
        flat_THD = parts[0].new_zeros(tokens, parts[0].shape[1], parts[0].shape[3])
        for group, part in zip(groups, parts, strict=True):
            _put_back(part, group, flat_THD)
        return flat_THD

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_HTD = grads[0].transpose(0, 1)
        return None, None, *(_folded(grad_HTD, group) for group in ctx.groups)


def _folded(x_HTD: torch.Tensor, group: Group) -> torch.Tensor:
    heads, _, size = x_HTD.shape
    grid = x_HTD.new_zeros(group.count, heads, group.length, size)
    for index, (start, tokens) in enumerate(group.spans):
        grid[index, :, :tokens] = x_HTD[:, start : start + tokens]
    return grid


def _put_back(part_CHLD: torch.Tensor, group: Group, flat_THD: torch.Tensor) -> None:
    for index, (start, tokens) in enumerate(group.spans):
        flat_THD[start : start + tokens] = part_CHLD[index, :, :tokens].transpose(0, 1)
