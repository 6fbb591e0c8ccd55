"""Lanes go on whatever one piece of work does; chores reach the engine and the ledger."""

from __future__ import annotations

import threading

import pytest
from tests.unit.pipeline.conftest import Shop

from afina.errors import Unavailable
from afina.pipeline.lanes import TRAINERS_TTL_S, ChoresLane, Lane
from afina.service.platform import Platform
from afina.service.usage import list_ledger, usage_tag
from afina.serving.journal import Journal
from afina.serving.protocol import UsageRecord
from afina.serving.testing import ScriptedEngine
from afina.store import outbox


def chores(platform: Platform, trainers: int = 0) -> ChoresLane:
    return ChoresLane(platform, lambda: trainers)


def test_a_fault_ends_one_piece_of_work_and_not_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afina.pipeline.lanes.ERROR_PAUSE_S", 0.0)
    done = threading.Event()
    faults = [Unavailable("The database is busy."), RuntimeError("a bug")]

    def work() -> bool:
        if faults:
            raise faults.pop()
        done.set()
        return False

    lane = Lane("test", work, 0.001)
    lane.start()
    assert done.wait(10)
    lane.stop()
    assert lane.join(10)


def test_usage_reaches_the_ledger_once(shop: Shop) -> None:
    journal = Journal(shop.platform.settings.journal)
    tag = usage_tag(shop.caller, "tiny")
    journal.append(UsageRecord("req_1", 1.0, "tiny", None, 3, 0, 2, "finished", tag))
    assert chores(shop.platform).work()
    assert not chores(shop.platform).work()
    (entry,) = list_ledger(shop.platform, shop.caller).data
    assert (entry.request_id, entry.prompt_tokens, entry.completion_tokens) == ("req_1", 3, 2)
    journal.close()


def test_the_engine_is_told_of_trainers_and_of_their_end(
    shop: Shop, engine: ScriptedEngine
) -> None:
    count = [1]
    lane = ChoresLane(shop.platform, lambda: count[0])
    lane.work()
    lane.work()
    count[0] = 0
    lane.work()
    lane.work()
    assert [(told.count, told.ttl_s) for told in engine.trainers] == [
        (1, TRAINERS_TTL_S),
        (0, TRAINERS_TTL_S),
    ]


def test_an_engine_that_is_away_is_told_later(shop: Shop) -> None:
    lane = chores(shop.platform, 1)
    lane.work()
    with ScriptedEngine(shop.platform.settings.engine_socket) as engine:
        lane.work()
        assert [told.count for told in engine.trainers] == [1]


def test_adapters_to_forget_are_forgotten_once_and_later_if_the_engine_is_away(
    shop: Shop,
) -> None:
    platform = shop.platform
    with platform.database.write() as tx:
        outbox.put_item(tx, "one", "forget_adapter", {"adapter": "a" * 64}, platform.clock.now())
    lane = chores(platform)
    lane.work()
    with ScriptedEngine(platform.settings.engine_socket) as engine:
        with platform.database.write() as tx:
            outbox.item_failed(tx, "one", platform.clock.now(), 0.0, "as if time had passed")
        lane.work()
        lane.work()
        assert engine.forgotten == ["a" * 64]
