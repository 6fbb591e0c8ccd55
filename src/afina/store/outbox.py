"""The outbox: effects outside the database, written in the transaction that causes them.

Kinds: `forget_adapter` {"adapter": manifest sha256}. A worker claims items, carries them out at
least once, and marks them done; a failed one comes back later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from afina.store.database import Tx


@dataclass(frozen=True)
class OutboxItem:
    """One effect to carry out."""

    id: str
    kind: str
    payload: Mapping[str, str]
    attempts: int


def put_item(tx: Tx, id: str, kind: str, payload: Mapping[str, str], now: float) -> None:
    """Adds an effect to carry out."""
    raise NotImplementedError


def claim_items(tx: Tx, now: float, lease_s: float, limit: int = 20) -> list[OutboxItem]:
    """Items that are due, oldest first; they come back after `lease_s` unless done."""
    raise NotImplementedError


def item_done(tx: Tx, id: str, now: float) -> None:
    """Marks an item as carried out."""
    raise NotImplementedError


def item_failed(tx: Tx, id: str, now: float, retry_in_s: float, reason: str) -> None:
    """Lets an item come back after `retry_in_s`."""
    raise NotImplementedError
