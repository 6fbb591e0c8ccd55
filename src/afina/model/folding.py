"""How the chats of a bin are laid side by side inside a layer, and what each may see.

A bin is one flat tensor of tokens. Attention wants chats of one length in a grid; padding lies
behind a chat's last token, where causality hides it. Chats that begin alike may share that
beginning: it stands once in the bin, and its keys and values are put in front of each chat's own.
Masks go by difference of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Places:
    """Where the tokens of a bin go in the grids of its groups, and back: made once a bin, so that
    a layer moves each tensor in one operation a group."""

    def __init__(self, groups: Sequence[Group], tokens: int) -> None:
        self._whole = any(group.whole for group in groups)
        self._keys = [_indices(group, with_prefix=True) for group in groups]
        self._rows = [_indices(group, with_prefix=False) for group in groups]
        self._empty = [torch.nonzero(rows < 0)[:, 0] for rows in self._rows]
        self._back = _inverse(self._rows, tokens)
        for index in (*self._keys, *self._rows):
            index.clamp_(min=0)

    def rows(self, x_HTD: torch.Tensor, number: int, group: Group) -> torch.Tensor:
        """The chats of a group, of a flat `[H, T, D]`, as `[C, H, L, D]`; what stands in padding
        is some other token's, and nothing that counts sees it."""
        if group.whole:
            return x_HTD.unsqueeze(0)
        return _grid(x_HTD, self._rows[number], group.count)

    def keys(self, x_GTD: torch.Tensor, number: int, group: Group) -> torch.Tensor:
        """The same of keys or values, with those of the prefix in front."""
        if group.whole:
            return x_GTD.unsqueeze(0)
        return _grid(x_GTD, self._keys[number], group.count)

    def grads(self, x_HTD: torch.Tensor, number: int, group: Group) -> torch.Tensor:
        """The gradients of a group's chats, `[C, H, L, D]`, with padding 0."""
        if group.whole:
            return x_HTD.unsqueeze(0)
        picked_THD = x_HTD.transpose(0, 1).index_select(0, self._rows[number])
        picked_THD.index_fill_(0, self._empty[number], 0)
        return _turned(picked_THD, group.count)

    def flat(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The flat `[T, H, D]` of all groups' `[C, H, L, D]`; 0 behind the last chat."""
        if self._whole:
            return parts[0][0].transpose(0, 1)
        joined = [part.transpose(1, 2).reshape(-1, part.shape[1], part.shape[3]) for part in parts]
        nothing = joined[0].new_zeros(1, *joined[0].shape[1:])
        return torch.cat([*joined, nothing]).index_select(0, self._back)


def _grid(x_HTD: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    return _turned(x_HTD.transpose(0, 1).index_select(0, index), count)


def _turned(picked_THD: torch.Tensor, count: int) -> torch.Tensor:
    return picked_THD.view(count, -1, *picked_THD.shape[1:]).transpose(1, 2)


def _indices(group: Group, *, with_prefix: bool) -> torch.Tensor:
    """The token of the bin at each place of a group's grid; -1 in padding."""
    start, before = group.prefix if with_prefix else NOTHING
    width = group.key_length if with_prefix else group.length
    grid = torch.full((group.count, width), -1)
    for row, (first, tokens) in zip(grid, group.spans, strict=False):
        row[:before] = torch.arange(start, start + before)
        row[before : before + tokens] = torch.arange(first, first + tokens)
    return grid.view(-1)


def _inverse(rows: Sequence[torch.Tensor], tokens: int) -> torch.Tensor:
    """For each token of the bin its place in all groups' grids, one behind another; the place
    behind them all for tokens that no chat has."""
    places = torch.cat([torch.zeros(0, dtype=torch.int64), *rows])
    back = torch.full((tokens,), len(places))
    real = torch.nonzero(places >= 0)[:, 0]
    back[places[real]] = real
    return back
