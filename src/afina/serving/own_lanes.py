"""Tunes with weights of their own: a lane for each, within a limit of bytes.

A tune of kind `blocks` or `full` is a network of its own. It batches with itself alone, keeps what
it shares with its base in the base's memory, and goes when others need the room and no request
uses it, the least recently used first. Used from the event loop alone; the lanes step in the
engine's thread.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from afina.errors import Overloaded
from afina.serving.lane import Lane


@dataclass(frozen=True)
class OwnLane:
    """A tune's lane and what it may take beside its base's memory, its cache included."""

    lane: Lane
    size: int


class OwnLanes:
    """The lanes in memory, least recently used first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lanes: OrderedDict[str, OwnLane] = OrderedDict()
        self._alive: Counter[str] = Counter()
        self._doomed: set[str] = set()

    @property
    def resident(self) -> list[str]:
        """Manifest hashes in memory."""
        return list(self._lanes)

    @property
    def size(self) -> int:
        """Bytes in use."""
        return sum(own.size for own in self._lanes.values())

    def enter(self, sha256: str) -> None:
        """A request wants the tune: it stays until `leave`."""
        self._alive[sha256] += 1

    def leave(self, sha256: str) -> list[str]:
        """A request has ended; tunes that go with it."""
        self._alive[sha256] -= 1
        if self._alive[sha256] <= 0:
            del self._alive[sha256]
            if sha256 in self._doomed:
                return self._drop(sha256)
        return []

    def find(self, sha256: str) -> Lane | None:
        """The tune's lane, if it is in memory."""
        own = self._lanes.get(sha256)
        if own is None:
            return None
        self._lanes.move_to_end(sha256)
        return own.lane

    def of_base(self, base_id: str) -> list[str]:
        """Those that share the memory of a base."""
        return [name for name, own in self._lanes.items() if own.lane.base_id == base_id]

    def lanes(self) -> list[Lane]:
        """All in memory."""
        return [own.lane for own in self._lanes.values()]

    def make_room(self, size: int) -> list[str]:
        """Tunes that go so that one of `size` bytes has room. Raises Overloaded and lets go of none
        if requests use too much."""
        going: list[str] = []
        free = self._limit - self.size
        for sha256, own in self._lanes.items():
            if free >= size:
                break
            if not self._alive[sha256]:
                going.append(sha256)
                free += own.size
        if free < size and any(sha256 not in going for sha256 in self._lanes):
            raise Overloaded(
                "Tunes with weights of their own fill the memory that they may have.",
                remedy="Ask again later, or raise AFINA_ENGINE__OWN_WEIGHTS_MB.",
                retry_after_s=2.0,
            )
        return [name for sha256 in going for name in self._drop(sha256)]

    def add(self, sha256: str, own: OwnLane) -> None:
        """Takes a tune in; `make_room` was asked before."""
        self._lanes[sha256] = own
        self._doomed.discard(sha256)

    def forget(self, sha256: str) -> list[str]:
        """Lets go of a tune now, or when the requests that use it have ended."""
        if sha256 not in self._lanes:
            return []
        if self._alive[sha256]:
            self._doomed.add(sha256)
            return []
        return self._drop(sha256)

    def _drop(self, sha256: str) -> list[str]:
        self._doomed.discard(sha256)
        return [sha256] if self._lanes.pop(sha256, None) is not None else []
