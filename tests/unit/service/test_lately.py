"""What was looked up lately is given at once, is never older than a second, and can be forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from afina.domain.clock import ManualClock
from afina.errors import Unauthenticated
from afina.service.lately import Lately


class Store:
    """Counts what is asked of it; `gate` holds an answer back."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.asked = 0
        self.refuses = False
        self.gate = threading.Event()
        self.gate.set()
        self.lately: Lately[str, int] = Lately(self.look, self.clock)

    def look(self, _: str) -> int:
        self.asked += 1
        value = self.asked
        assert self.gate.wait(30)
        if self.refuses:
            raise Unauthenticated("no")
        return value

    async def settled(self) -> None:
        while self.lately._renewals:
            await asyncio.gather(*self.lately._renewals)


def played(play: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(play(Store()))


def test_who_asks_steadily_never_waits_and_gets_nothing_older_than_a_second() -> None:
    async def play(store: Store) -> None:
        assert await store.lately.get("a") == 1
        store.clock.advance(0.4)
        assert await store.lately.get("a") == 1
        assert store.asked == 1
        store.clock.advance(0.2)
        store.gate.clear()
        assert await store.lately.get("a") == 1  # at once, though the store does not answer yet
        assert await store.lately.get("a") == 1
        store.gate.set()
        await store.settled()
        assert store.asked == 2
        store.clock.advance(0.5)
        assert await store.lately.get("a") == 2
        await store.settled()
        store.clock.advance(1.0)
        assert await store.lately.get("a") == 4

    played(play)


def test_a_refusal_is_not_kept_and_ends_what_was_known() -> None:
    async def play(store: Store) -> None:
        await store.lately.get("a")
        store.refuses = True
        store.clock.advance(0.6)
        assert await store.lately.get("a") == 1
        await store.settled()
        with pytest.raises(Unauthenticated):
            await store.lately.get("a")
        store.refuses = False
        assert await store.lately.get("a") == 4

    played(play)


def test_what_is_forgotten_does_not_come_back_from_a_look_up_under_way() -> None:
    async def play(store: Store) -> None:
        await store.lately.get("a")
        store.clock.advance(0.6)
        store.gate.clear()
        await store.lately.get("a")
        await asyncio.sleep(0)
        store.lately.forget(lambda value: value == 1)
        store.gate.set()
        await store.settled()
        assert await store.lately.get("a") == store.asked == 3

    played(play)
