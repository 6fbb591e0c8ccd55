"""Adapters in memory: bounded, fair, and never taken from a request that uses them."""

from __future__ import annotations

import asyncio

from afina.serving.adapters import Adapter, AdapterBank
from afina.serving.residency import Residency


def adapter(name: str) -> Adapter:
    return Adapter(name, 8)


def test_the_least_recently_used_makes_room() -> None:
    bank = AdapterBank(2)
    for time, name in enumerate(("a", "b")):
        bank.add(adapter(name), time)
    bank.refer("a", 2.0)
    bank.release("a", 2.0)
    bank.add(adapter("c"), 3.0)
    assert sorted(bank.resident) == ["a", "c"]


def test_an_adapter_in_use_is_never_evicted() -> None:
    bank = AdapterBank(1)
    bank.refer("a", 0.0)
    bank.add(adapter("a"), 0.0)
    bank.refer("b", 1.0)
    bank.add(adapter("b"), 1.0)
    assert sorted(bank.resident) == ["a", "b"]
    assert bank.drop_idle(before=99.0) == []
    bank.release("a", 2.0)
    assert bank.drop_idle(before=99.0) == ["a"]


def test_a_forgotten_adapter_goes_when_its_requests_have_ended() -> None:
    bank = AdapterBank(4)
    bank.refer("a", 0.0)
    bank.add(adapter("a"), 0.0)
    bank.forget("a")
    assert bank.find("a") is None
    assert bank.resident == ["a"]
    bank.release("a", 1.0)
    assert bank.resident == []


def test_a_rare_adapter_is_not_kept_out_by_busy_ones() -> None:
    async def story() -> list[str]:
        room = Residency(1)
        order: list[str] = []

        async def use(name: str) -> None:
            await room.enter(name)
            order.append(name)
            await asyncio.sleep(0)
            room.leave(name)

        await asyncio.gather(*(use(name) for name in ("hot", "hot", "rare", "hot", "hot")))
        return order

    assert asyncio.run(story()) == ["hot", "hot", "rare", "hot", "hot"]


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    async def story() -> None:
        room = Residency(1)
        await room.enter("a")
        waiting = asyncio.ensure_future(room.enter("b"))
        behind = asyncio.ensure_future(room.enter("a"))
        await asyncio.sleep(0)
        assert not behind.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await behind
        room.leave("a")
        room.leave("a")
        await room.enter("b")

    asyncio.run(story())
