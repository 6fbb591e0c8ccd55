"""The bases in memory: which requests use, and which goes so that another finds room.

Used from the event loop alone; the lanes step in the engine's thread.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from afina.serving.lane import Lane


class Bases:
    """The bases' lanes, least recently used first."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._alive: Counter[str] = Counter()

    @property
    def resident(self) -> list[str]:
        """Bases in memory."""
        return list(self._lanes)

    def lanes(self) -> list[Lane]:
        """All in memory."""
        return list(self._lanes.values())

    def enter(self, base_id: str) -> None:
        """A request wants the base, or a tune of it: it stays until `leave`."""
        self._alive[base_id] += 1

    def leave(self, base_id: str) -> None:
        """A request has ended."""
        self._alive[base_id] -= 1
        if self._alive[base_id] <= 0:
            del self._alive[base_id]

    def find(self, base_id: str) -> Lane | None:
        """The base's lane, if it is in memory."""
        if base_id in self._lanes:
            self._lanes.move_to_end(base_id)
        return self._lanes.get(base_id)

    def add(self, base_id: str, lane: Lane) -> None:
        """Takes a base in."""
        self._lanes[base_id] = lane

    def take_idle(self) -> str | None:
        """Takes out the least recently used base that no request uses; None where all are used."""
        for base_id in self._lanes:
            if base_id not in self._alive:
                del self._lanes[base_id]
                return base_id
        return None
