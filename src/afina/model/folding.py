"""How the chats of a bin are laid side by side inside a layer, and what each may see.

A bin is one flat tensor of tokens. Attention wants chats of one length in a grid; padding lies
behind a chat's last token, where causality hides it. Chats that begin alike may share that
beginning: it stands once in the bin, and its keys and values are put in front of each chat's own.
Masks go by difference of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

_COST_OF_GROUP: Final = 32_768
"""What one more group costs, in scores: a score and a group's operations were measured."""
_WIDEST: Final = 64
"""Chats of a group at most, so that the search for the best groups takes no time."""
_COUNTS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
NOTHING: Final = (0, 0)

Span = tuple[int, int]
"""Where some tokens stand in a bin: the first one's place, and how many they are."""


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
    """Chats of a bin that are padded to one length."""

    length: int
    spans: tuple[Span, ...]
    whole: bool
    """The bin is this one chat: nothing has to be moved."""
    prefix: Span = NOTHING
    """Tokens that stand once in the bin and come before the first token of each of these chats.
    They are a chat of another group themselves."""

    @property
    def count(self) -> int:
        return 1 if self.whole else _padded_count(len(self.spans))

    @property
    def key_length(self) -> int:
        """The keys that a query may see at most: the prefix and the chat itself."""
        before = self.prefix[1]
        return -(-(before + self.length) // 32) * 32 if before else self.length


def group_spans(
    spans: Sequence[Span], capacity: int | None, prefix: Span = NOTHING
) -> tuple[Group, ...]:
    """Groups of chats of similar length: few of them, and little padding in them. `capacity` is the
    bin's where it holds nothing but `spans`."""
    if capacity is not None and len(spans) == 1:
        return (Group(capacity, tuple(spans), whole=True),)
    ordered = sorted(spans, key=lambda span: (-span[1], span[0]))
    best: list[tuple[int, int]] = [
        (0, 0)
    ]  # of the first n chats: cost, where the last group begins
    for end in range(1, len(ordered) + 1):
        options = range(max(0, end - _WIDEST), end)
        best.append(min((best[at][0] + _cost(ordered, at, end, prefix), at) for at in options))
    groups: list[Group] = []
    end = len(ordered)
    while end:
        at = best[end][1]
        groups.append(_group(ordered, at, end, prefix))
        end = at
    return tuple(reversed(groups))


def _group(ordered: Sequence[Span], at: int, end: int, prefix: Span) -> Group:
    return Group(padded_length(ordered[at][1]), tuple(ordered[at:end]), whole=False, prefix=prefix)


def _cost(ordered: Sequence[Span], at: int, end: int, prefix: Span) -> int:
    """What a group of the chats from `at` to `end` costs, in scores."""
    group = _group(ordered, at, end, prefix)
    return group.count * group.length * group.key_length + _COST_OF_GROUP


def causal_mask(
    length: int, window: int | None, dtype: torch.dtype, before: int = 0, keys: int | None = None
) -> torch.Tensor:
    """0 where a query may see a key, minus infinity elsewhere; `[length, keys]`. The keys are those
    of `before` earlier tokens, then the queries' own."""
    query = torch.arange(length) + before
    distance = query[:, None] - torch.arange(keys or length)[None, :]
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return torch.zeros(distance.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


class Masks:
    """Masks by lengths and window, made once; `repeats` query heads share one key head."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], torch.Tensor] = {}

    def get(
        self, group: Group, window: int | None, dtype: torch.dtype, repeats: int
    ) -> torch.Tensor:
        """The mask of a group, `[repeats * length, key_length]`."""
        before, keys = group.prefix[1], group.key_length
        if window is not None and window >= before + group.length:
            window = None
        key = (group.length, before, keys, window, dtype, repeats)
        if key not in self._made:
            mask = causal_mask(group.length, window, dtype, before, keys)
            self._made[key] = mask.repeat(repeats, 1)
        return self._made[key]


def folded(x_HTD: torch.Tensor, group: Group) -> torch.Tensor:
    """The chats of a group, of a flat `[H, T, D]`, as `[C, H, L, D]` with padding 0."""
    if group.whole:
        return x_HTD.unsqueeze(0)
    heads, _, size = x_HTD.shape
    grid = x_HTD.new_zeros(group.count, heads, group.length, size)
    _fill(grid, x_HTD, group.spans)
    return grid


def folded_keys(x_GTD: torch.Tensor, group: Group) -> torch.Tensor:
    """The same of keys or values, with those of the prefix in front."""
    start, before = group.prefix
    if not before:
        return folded(x_GTD, group)
    heads, _, size = x_GTD.shape
    grid = x_GTD.new_zeros(group.count, heads, group.key_length, size)
    grid[:, :, :before] = x_GTD[:, start : start + before]
    _fill(grid[:, :, before:], x_GTD, group.spans)
    return grid


def _fill(grid_CHLD: torch.Tensor, x_HTD: torch.Tensor, spans: Iterable[Span]) -> None:
    for index, (start, tokens) in enumerate(spans):
        grid_CHLD[index, :, :tokens] = x_HTD[:, start : start + tokens]


def put_back(part_CHLD: torch.Tensor, group: Group, flat_THD: torch.Tensor) -> None:
    """Writes a group's chats to their places in a flat `[T, H, D]`."""
    for index, (start, tokens) in enumerate(group.spans):
        flat_THD[start : start + tokens] = part_CHLD[index, :, :tokens].transpose(0, 1)


def flat_for(like: torch.Tensor, shape: Sequence[int], groups: Iterable[Group]) -> torch.Tensor:
    """A flat tensor of `shape` `[T, H, D]`, zero behind the last chat of `groups`."""
    flat_THD = like.new_empty(tuple(shape))
    used = max((start + tokens for group in groups for start, tokens in group.spans), default=0)
    flat_THD[used:] = 0
    return flat_THD
