"""Answers to creates that may be asked again: one row a key (or body), kept for its time.

The row is written in the transaction of the create itself, so there is no moment in which one
exists without the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select

from afina.store.database import Tx
from afina.store.dialects import lock_name
from afina.store.tables import IDEMPOTENCY


@dataclass(frozen=True)
class Slot:
    """What makes two creates the same: the API key, the route, and a name within them."""

    key_id: str
    route: str
    name: str


@dataclass(frozen=True)
class Remembered:
    """An answer given before, and the hash of the body it was given for."""

    body_sha256: str
    answer: Mapping[str, Any]


def recall(tx: Tx, slot: Slot, now: int) -> Remembered | None:
    """The answer that stands in the slot. Holds the slot for this write transaction."""
    lock_name(tx, f"idempotency {slot.key_id} {slot.route} {slot.name}")
    row = tx.execute(
        select(IDEMPOTENCY).where(*_is(slot), IDEMPOTENCY.c.expires_at > now)
    ).one_or_none()
    return None if row is None else Remembered(row.body_sha256, row.answer)


def remember(tx: Tx, slot: Slot, remembered: Remembered, expires_at: int) -> None:
    """Puts an answer into the slot, in the place of an older one."""
    tx.execute(delete(IDEMPOTENCY).where(*_is(slot)))
    tx.execute(
        insert(IDEMPOTENCY).values(
            key_id=slot.key_id,
            route=slot.route,
            name=slot.name,
            body_sha256=remembered.body_sha256,
            expires_at=expires_at,
            answer=dict(remembered.answer),
        )
    )


def forget_expired(tx: Tx, now: int) -> int:
    """Removes answers whose time is over."""
    return tx.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.expires_at <= now)).rowcount


def _is(slot: Slot) -> tuple[Any, ...]:
    columns = IDEMPOTENCY.c
    return columns.key_id == slot.key_id, columns.route == slot.route, columns.name == slot.name
