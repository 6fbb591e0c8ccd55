"""What was looked up lately, for an event loop that answers many requests with the same answer.

An answer is good for a second. In the second half of it the next one who asks gets it at once, and
it is looked up again beside that request: who asks steadily never waits for the store, and nobody
is given an answer that is older than a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from anyio import to_thread

from afina.domain.clock import Clock
from afina.errors import AfinaError

K = TypeVar("K")
V = TypeVar("V")

GOOD_S: Final = 1.0
_FRESH_S: Final = 0.5


@dataclass
class _Known(Generic[V]):
    value: V
    at: float
    renewing: bool = False


class Lately(Generic[K, V]):
    """Answers of `look`, which is asked in a thread. For one event loop."""

    def __init__(self, look: Callable[[K], V], clock: Clock, most: int = 1024) -> None:
        self._look = look
        self._clock = clock
        self._most = most
        self._known: dict[K, _Known[V]] = {}
        self._epoch = 0
        self._renewals: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> V:
        """The answer, no older than a second. Raises what `look` raises; that is not kept."""
        known = self._known.get(key)
        age = GOOD_S if known is None else self._clock.monotonic() - known.at
        if known is None or age >= GOOD_S:
            return await self._asked(key)
        if age >= _FRESH_S and not known.renewing:
            known.renewing = True
            renewal = asyncio.create_task(self._renew(key))
            self._renewals.add(renewal)
            renewal.add_done_callback(self._renewals.discard)
        return known.value

    def forget(self, is_meant: Callable[[V], bool] | None = None) -> None:
        """From now on those answers, or all, are looked up again; also those that are on their
        way."""
        self._epoch += 1
        for key, known in list(self._known.items()):
            if is_meant is None or is_meant(known.value):
                del self._known[key]

    async def _asked(self, key: K) -> V:
        epoch, now = self._epoch, self._clock.monotonic()
        value = await to_thread.run_sync(self._look, key)
        if epoch == self._epoch:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = _Known(value, now)
        return value

    async def _renew(self, key: K) -> None:
        try:
            await self._asked(key)
        except AfinaError:
            self._known.pop(key, None)  # whoever asks next is told why
