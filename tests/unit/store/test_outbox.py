"""What must happen outside is carried out at least once, and not by two workers at a time."""

from __future__ import annotations

from afina.store import outbox
from afina.store.database import Database


def test_an_item_is_claimed_by_one_until_its_time_runs_out(database: Database) -> None:
    with database.write() as tx:
        outbox.put_item(tx, "out_1", "forget_adapter", {"adapter": "a"}, 100.0)
    with database.write() as tx:
        assert [item.id for item in outbox.claim_items(tx, 100.0, 30.0)] == ["out_1"]
        assert outbox.claim_items(tx, 129.0, 30.0) == []
        again = outbox.claim_items(tx, 130.0, 30.0)
    assert [(item.payload, item.attempts) for item in again] == [({"adapter": "a"}, 2)]


def test_a_done_item_never_comes_back(database: Database) -> None:
    with database.write() as tx:
        outbox.put_item(tx, "out_1", "k", {}, 0.0)
        outbox.claim_items(tx, 0.0, 1.0)
        outbox.item_done(tx, "out_1", 1.0)
        assert outbox.claim_items(tx, 1e9, 1.0) == []
        assert outbox.drop_done_items(tx, 1) == 0
        assert outbox.drop_done_items(tx, 2) == 1


def test_a_failed_item_comes_back_later(database: Database) -> None:
    with database.write() as tx:
        outbox.put_item(tx, "out_1", "k", {}, 0.0)
        outbox.claim_items(tx, 0.0, 1.0)
        outbox.item_failed(tx, "out_1", 0.0, 50.0, "engine away")
        assert outbox.claim_items(tx, 49.0, 1.0) == []
        assert len(outbox.claim_items(tx, 50.0, 1.0)) == 1


def test_items_come_in_the_order_of_their_making(database: Database) -> None:
    with database.write() as tx:
        for number in range(5):
            outbox.put_item(tx, f"out_{9 - number}", "k", {}, 7.0)
        found = [item.id for item in outbox.claim_items(tx, 7.0, 1.0, limit=3)]
    assert found == ["out_9", "out_8", "out_7"]
