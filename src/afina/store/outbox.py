"""The outbox: effects outside the database, written in the transaction that causes them.

Kinds: `forget_adapter` {"adapter": manifest sha256}; `tell_tracker` {"job", "number" of the
integration, and how far it was told}, which comes back until its job is over. A worker claims
items, carries them out at least once, and marks them done; a failed one comes back later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, insert, select, update

from afina.store.database import Tx
from afina.store.ordering import next_order
from afina.store.tables import OUTBOX

FORGET_ADAPTER: Final = "forget_adapter"
TELL_TRACKER: Final = "tell_tracker"
SLOW: Final = (TELL_TRACKER,)
"""Kinds that wait for others' machines and have a lane of their own."""


@dataclass(frozen=True)
class OutboxItem:
    """One effect to carry out."""

    id: str
    kind: str
    payload: Mapping[str, str]
    attempts: int


def put_item(tx: Tx, id: str, kind: str, payload: Mapping[str, str], now: float) -> None:
    """Adds an effect to carry out."""
    tx.execute(
        insert(OUTBOX).values(
            id=id,
            order_key=next_order(tx, OUTBOX, now),
            kind=kind,
            payload=dict(payload),
            created_at=int(now),
            available_at=now,
            attempts=0,
        )
    )


def is_any_due(tx: Tx, now: float, *, slow: bool) -> bool:
    """A cheap look before a claim."""
    return tx.execute(select(OUTBOX.c.id).where(*_due(now, slow)).limit(1)).first() is not None


def claim_items(
    tx: Tx, now: float, lease_s: float, limit: int = 20, *, slow: bool = False
) -> list[OutboxItem]:
    """Items that are due, oldest first; they come back after `lease_s` unless done. Only those of
    `SLOW` kinds, or only the others."""
    due = (
        select(OUTBOX.c.id)
        .where(*_due(now, slow))
        .order_by(OUTBOX.c.order_key)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = tx.execute(
        update(OUTBOX)
        .where(OUTBOX.c.id.in_(due))
        .values(available_at=now + lease_s, attempts=OUTBOX.c.attempts + 1)
        .returning(OUTBOX)
    )
    rows = sorted(taken, key=lambda row: row.order_key)
    return [OutboxItem(row.id, row.kind, row.payload, row.attempts) for row in rows]


def item_later(tx: Tx, id: str, payload: Mapping[str, str], at: float) -> None:
    """Lets an item that went well come back at `at` with a new payload."""
    values = {"payload": dict(payload), "available_at": at, "last_error": None}
    tx.execute(update(OUTBOX).where(OUTBOX.c.id == id).values(**values))


def item_done(tx: Tx, id: str, now: float) -> None:
    """Marks an item as carried out."""
    tx.execute(update(OUTBOX).where(OUTBOX.c.id == id).values(done_at=int(now), last_error=None))


def item_failed(
    tx: Tx,
    id: str,
    now: float,
    retry_in_s: float,
    reason: str,
    payload: Mapping[str, str] | None = None,
) -> None:
    """Lets an item come back after `retry_in_s`, with a new payload where one is given."""
    values: dict[str, object] = {"available_at": now + retry_in_s, "last_error": reason}
    if payload is not None:
        values["payload"] = dict(payload)
    tx.execute(update(OUTBOX).where(OUTBOX.c.id == id).values(**values))


def drop_done_items(tx: Tx, before: int) -> int:
    """Removes items that were carried out before then."""
    return tx.execute(delete(OUTBOX).where(OUTBOX.c.done_at < before)).rowcount


def _due(now: float, slow: bool) -> tuple[ColumnElement[bool], ...]:
    kind = OUTBOX.c.kind.in_(SLOW) if slow else OUTBOX.c.kind.not_in(SLOW)
    return OUTBOX.c.done_at.is_(None), OUTBOX.c.available_at <= now, kind
