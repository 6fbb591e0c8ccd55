"""Rows of permissions: which other projects may use a tuned model or one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Row, delete, insert, select

from afina.domain.codec import encode
from afina.domain.pages import Page
from afina.store.database import Tx
from afina.store.ordering import next_order, read_page
from afina.store.tables import MODELS
from afina.store.wire_tables import CHECKPOINT_PERMISSIONS

_P = CHECKPOINT_PERMISSIONS.c


@dataclass(frozen=True)
class Permission:
    """`project_id` may use `model`."""

    id: str
    model: str
    project_id: str
    created_at: int


def grant(tx: Tx, permission: Permission, now: float) -> Permission:
    """Adds the permission; one that stands already stays as it is."""
    where = (_P.model == permission.model, _P.project_id == permission.project_id)
    row = tx.execute(select(CHECKPOINT_PERMISSIONS).where(*where)).one_or_none()
    if row is not None:
        return _permission(row)
    order = next_order(tx, CHECKPOINT_PERMISSIONS, now)
    tx.execute(insert(CHECKPOINT_PERMISSIONS).values(**encode(permission), order_key=order))
    return permission


def list_permissions(
    tx: Tx,
    model: str,
    project_id: str | None,
    page: tuple[str | None, int],
    *,
    ascending: bool,
) -> Page[Permission]:
    """The permissions on a model; `page` is the id to go on after, and how many."""
    where: ColumnElement[bool] = _P.model == model
    if project_id is not None:
        where = where & (_P.project_id == project_id)
    after, limit = page
    rows, more = read_page(
        tx, CHECKPOINT_PERMISSIONS, where, after=after, limit=limit, ascending=ascending
    )
    return Page(tuple(_permission(row) for row in rows), more)


def revoke(tx: Tx, model: str, id: str) -> Permission | None:
    """Ends the permission; None if there is none of that id on the model."""
    statement = (
        delete(CHECKPOINT_PERMISSIONS)
        .where(_P.id == id, _P.model == model)
        .returning(CHECKPOINT_PERMISSIONS)
    )
    row = tx.execute(statement).one_or_none()
    return None if row is None else _permission(row)


def usable_by(project_id: str | BindParameter[str]) -> ColumnElement[bool]:
    """A condition on models: those of the project, and those that it was given."""
    given = select(_P.model).where(_P.project_id == project_id)
    return (MODELS.c.project_id == project_id) | MODELS.c.name.in_(given)


def _permission(row: Row[Any]) -> Permission:
    return Permission(**{name: getattr(row, name) for name in Permission.__dataclass_fields__})
