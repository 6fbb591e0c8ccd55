"""The audit log: entries are added and read, never changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, or_, select

from afina.domain.audit import AuditEntry, AuditQuery
from afina.domain.codec import encode
from afina.domain.pages import Page
from afina.store.account_tables import AUDIT_LOG, USERS
from afina.store.database import Tx
from afina.store.ordering import next_order, read_page


def append_audit(tx: Tx, entry: AuditEntry, now: float) -> None:
    """Adds an entry."""
    order = next_order(tx, AUDIT_LOG, now)
    tx.execute(insert(AUDIT_LOG).values({**encode(entry), "order_key": order}))


def list_audit(
    tx: Tx, organization_id: str, query: AuditQuery, after: str | None, limit: int
) -> Page[AuditEntry]:
    """Newest first."""
    where = and_(AUDIT_LOG.c.organization_id == organization_id, *_conditions(query))
    rows, more = read_page(tx, AUDIT_LOG, where, after=after, limit=limit)
    return Page(tuple(_entry(row) for row in rows), more)


def entries_on(tx: Tx, types: Sequence[str], resources: Sequence[str]) -> list[AuditEntry]:
    """All entries of these types on these resources, oldest first."""
    c = AUDIT_LOG.c
    query = select(AUDIT_LOG).where(c.type.in_(types), c.resource_id.in_(resources))
    return [_entry(row) for row in tx.execute(query.order_by(c.order_key)).all()]


def _conditions(query: AuditQuery) -> list[ColumnElement[bool]]:
    c = AUDIT_LOG.c
    found: list[ColumnElement[bool]] = []
    for column, values in (
        (c.type, query.types),
        (c.project_id, query.projects),
        (c.resource_id, query.resources),
    ):
        if values:
            found.append(column.in_(values))
    if query.actors:
        found.append(or_(c.key_id.in_(query.actors), c.user_id.in_(query.actors)))
    if query.emails:
        found.append(c.user_id.in_(select(USERS.c.id).where(USERS.c.email.in_(query.emails))))
    if query.since is not None:
        found.append(c.time >= query.since)
    if query.until is not None:
        found.append(c.time <= query.until)
    return found


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__dataclass_fields__})
