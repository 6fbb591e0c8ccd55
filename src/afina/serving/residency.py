"""Who may bring an adapter into memory: never more different ones alive than there is room for.

Requests enter with their adapter and leave when they have ended. One whose adapter has no room
waits, and whoever comes after it waits behind it, so that a rare adapter is not kept out by busy
ones. Used from the event loop alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Residency:
    """Counts the adapters of requests that are alive."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._alive: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def enter(self, adapter: str) -> None:
        """Returns once the adapter may be in memory; `leave` must follow."""
        if not self._waiting and self._fits(adapter):
            self._alive[adapter] += 1
            return
        ticket = (adapter, asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        try:
            await ticket[1]
        except asyncio.CancelledError:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self.leave(adapter)
            self._admit()
            raise

    def is_alive(self, adapter: str) -> bool:
        """Whether a request that entered with the adapter has not left. Safe from any thread."""
        return adapter in self._alive

    def leave(self, adapter: str) -> None:
        """A request that entered has ended."""
        self._alive[adapter] -= 1
        if self._alive[adapter] <= 0:
            del self._alive[adapter]
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            adapter, future = self._waiting.popleft()
            if not future.done():
                self._alive[adapter] += 1
                future.set_result(None)

    def _fits(self, adapter: str) -> bool:
        return adapter in self._alive or len(self._alive) < self._capacity
