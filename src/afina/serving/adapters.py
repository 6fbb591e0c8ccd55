"""The adapters in memory beside one base, as they were read.

The bank holds up to a number of them and lets go of the idle and the least recently used, never of
one that a request refers to. How a batch computes with them is `afina.serving.seats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch


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
