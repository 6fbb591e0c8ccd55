"""The adapters in memory beside one base: which ones, and for how long.

The bank holds up to a number of them and lets go of the idle and the least recently used, never of
one that a request refers to or is about to. Their weights lie in `afina.serving.pages`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from afina.serving.pages import Pages, Ready


@dataclass
class Adapter:
    """An adapter on its way into memory, or in it. `written` is empty once its pages hold it."""

    sha256: str
    rank: int
    written: Ready = field(default_factory=dict)


def nobody(sha256: str) -> bool:  # noqa: ARG001
    """Wants no adapter."""
    return False


class AdapterBank:
    """The adapters in memory, least recently used first."""

    def __init__(self, capacity: int, is_wanted: Callable[[str], bool] = nobody) -> None:
        self.capacity = capacity
        self.pages: Pages | None = None
        self._is_wanted = is_wanted
        """Whether a request that is alive wants it, though it may not refer to it yet."""
        self._adapters: dict[str, Adapter] = {}
        self._used_at: dict[str, float] = {}
        self._references: Counter[str] = Counter()
        self._doomed: set[str] = set()

    @property
    def resident(self) -> list[str]:
        """Manifest hashes in memory."""
        return list(self._adapters)

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

    def add(self, adapter: Adapter, now: float) -> bool:
        """Takes an adapter in; the least recently used without a request makes room. False if it
        was there."""
        is_new = adapter.sha256 not in self._adapters
        if is_new:
            if self.pages is not None:
                if not adapter.written:
                    raise RuntimeError("an adapter left memory while a request wanted it")
                self.pages.put(adapter.sha256, adapter.rank, adapter.written)
            adapter.written = {}
            self._adapters[adapter.sha256] = adapter
        self._doomed.discard(adapter.sha256)
        self._touch(adapter.sha256, now)
        for sha256 in list(self._used_at):
            if len(self._adapters) <= self.capacity:
                break
            if not self._is_used(sha256) and sha256 != adapter.sha256:
                self._drop(sha256)
        return is_new

    def drop_idle(self, before: float) -> list[str]:
        """Lets go of adapters that nobody has used since `before`."""
        idle = [
            sha256
            for sha256, at in self._used_at.items()
            if (at < before or sha256 in self._doomed) and not self._is_used(sha256)
        ]
        for sha256 in idle:
            self._drop(sha256)
        return idle

    def forget(self, sha256: str) -> None:
        """Lets go of an adapter now, or as soon as the requests that refer to it have ended."""
        if sha256 not in self._adapters:
            return
        if self._is_used(sha256):
            self._doomed.add(sha256)
        else:
            self._drop(sha256)

    def _is_used(self, sha256: str) -> bool:
        return self._references[sha256] > 0 or self._is_wanted(sha256)

    def _touch(self, sha256: str, now: float) -> None:
        self._used_at.pop(sha256, None)
        self._used_at[sha256] = now

    def _drop(self, sha256: str) -> None:
        if self._adapters.pop(sha256, None) is not None and self.pages is not None:
            self.pages.discard(sha256)
        self._used_at.pop(sha256, None)
        self._doomed.discard(sha256)
