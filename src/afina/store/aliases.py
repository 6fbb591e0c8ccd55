"""Rows of aliases: a history of what each name meant, the newest row last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, insert, select

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.store.database import Tx
from afina.store.ordering import next_order
from afina.store.wire_tables import ALIASES

_A = ALIASES.c


@dataclass(frozen=True)
class AliasEntry:
    """From `created_at` on, `name` means `target` (None: nothing). `follows` is the suffix whose
    new models it moves to by itself."""

    id: str
    project_id: str
    name: str
    target: str | None
    follows: str | None
    reason: str
    created_at: int


def append_alias(tx: Tx, entry: AliasEntry, caller: Caller, now: float) -> None:
    """Adds what the name means from now on."""
    values: dict[str, Any] = encode(entry)
    values |= {
        "organization_id": caller.organization_id,
        "order_key": next_order(tx, ALIASES, now),
    }
    tx.execute(insert(ALIASES).values(**values))


def alias_history(tx: Tx, project_id: str, name: str) -> list[AliasEntry]:
    """Newest first."""
    query = select(ALIASES).where(_A.project_id == project_id, _A.name == name)
    return [_entry(row) for row in tx.execute(query.order_by(_A.order_key.desc()))]


def current_alias(tx: Tx, project_id: str, name: str) -> AliasEntry | None:
    """What the name means now; None if it never meant anything."""
    query = select(ALIASES).where(_A.project_id == project_id, _A.name == name)
    row = tx.execute(query.order_by(_A.order_key.desc()).limit(1)).one_or_none()
    return None if row is None else _entry(row)


def current_aliases(tx: Tx, project_id: str) -> list[AliasEntry]:
    """All names that mean something now, by name."""
    newest = select(func.max(_A.order_key)).where(_A.project_id == project_id).group_by(_A.name)
    query = select(ALIASES).where(_A.project_id == project_id, _A.order_key.in_(newest))
    found = [_entry(row) for row in tx.execute(query.order_by(_A.name))]
    return [entry for entry in found if entry.target is not None or entry.follows is not None]


def _entry(row: Row[Any]) -> AliasEntry:
    return AliasEntry(**{name: getattr(row, name) for name in AliasEntry.__dataclass_fields__})
