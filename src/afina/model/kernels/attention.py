"""Attention over a bin of chats from one flat tensor of queries, keys and values to one flat tensor
(`source/attention.c`, `attention_back.c`): nothing is gathered, padded or masked in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from afina.domain.foresight import HEAD_STEP
from afina.model.folding import Group
from afina.model.grids import Heads
from afina.model.kernels.calls import call, structure, whole

_PIECE: Final = 256
_PIECES: Final = 8
"""A long chat's queries are cut into so many pieces at most, for threads to share; each piece sums
what its keys get in memory of its own."""

_Attention: Final = structure(
    "_Attention",
    "qkv out tops of_out of_qkv sums jobs",
    "count tokens queries keys size window",
    "scale",
    "next failed",
)


@dataclass(frozen=True)
class Jobs:
    """A bin's attention, cut into pieces of work by its shape alone. A row of `table` is: the first
    token and the count of what a chat shares, its own first token, its queries from and to, the
    first key that they see, and where its sums for keys begin."""

    table: NDArray[np.int64]
    keys: int
    used: int
    """Tokens that belong to a chat; they stand before all others."""
    window: int

    @classmethod
    def of(cls, groups: Sequence[Group], window: int | None) -> Jobs:
        """The jobs of a bin's groups, the longest first."""
        found: list[list[int]] = []
        used = 0
        for group in groups:
            before, befores = group.prefix
            for start, tokens in group.spans:
                used = max(used, start + tokens)
                piece = max(_PIECE, -(-tokens // _PIECES))
                for at in range(0, tokens, piece):
                    seen_from = 0 if window is None else max(0, befores + at + 1 - window) & ~1
                    end = min(tokens, at + piece)
                    found.append([before, befores, start, at, end, seen_from])
        found.sort(key=lambda job: (-(job[4] - job[3]) * _keys(job), job))
        places = np.cumsum([0, *(_keys(job) for job in found)])
        table = np.array([[*job, at] for job, at in zip(found, places, strict=False)], np.int64)
        return cls(table.reshape(-1, 7), int(places[-1]), used, window or 0)


def _keys(job: Sequence[int]) -> int:
    return job[1] + job[4] - job[5]


def attend(
    qkv: torch.Tensor, jobs: Jobs, heads: Heads, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The chats' attention, `[T, Q * D]`, from `[T, (Q + 2 G) * D]`; and of each query `[T, Q, 2]`
    its largest score (in powers of two) and 1 over the sum of its chances, in fp32."""
    out = qkv.new_empty(qkv.shape[0], heads.queries * heads.size)
    out[jobs.used :].zero_()
    tops = torch.empty(qkv.shape[0], heads.queries, 2)
    given = _given(qkv, jobs, heads, scale)
    given.out, given.tops = out.data_ptr(), tops.data_ptr()
    call("afina_attend", given)
    return out, tops


@dataclass(frozen=True)
class Attended:
    """What the backward pass needs of the forward one."""

    qkv: torch.Tensor
    out: torch.Tensor
    tops: torch.Tensor


def attend_back(
    kept: Attended, grad: torch.Tensor, jobs: Jobs, heads: Heads, scale: float
) -> torch.Tensor:
    """The gradient of `[T, (Q + 2 G) * D]` for that of `[T, Q * D]`."""
    count = kept.qkv.shape[0]
    found = torch.empty_like(kept.qkv)
    found[jobs.used :].zero_()
    sums = torch.empty(jobs.keys * 2 * heads.keys * heads.size)
    given = _given(kept.qkv, jobs, heads, scale)
    given.out = whole(kept.out, count, heads.queries * heads.size)
    given.tops = whole(kept.tops, count, heads.queries, 2, dtype=torch.float32)
    given.of_out = whole(grad, count, heads.queries * heads.size)
    given.of_qkv, given.sums = found.data_ptr(), sums.data_ptr()
    call("afina_attend_back", given)
    return found


def _given(qkv: torch.Tensor, jobs: Jobs, heads: Heads, scale: float) -> Any:
    if heads.size % HEAD_STEP or heads.queries % heads.keys or jobs.used > qkv.shape[0]:
        raise ValueError(f"no kernel for {heads}, {jobs.used} of {qkv.shape[0]} tokens")
    return _Attention(
        qkv=whole(qkv, qkv.shape[0], heads.all * heads.size), jobs=jobs.table.ctypes.data,
        count=len(jobs.table), tokens=jobs.used, queries=heads.queries, keys=heads.keys,
        size=heads.size, window=jobs.window, scale=scale,
    )  # fmt: skip
