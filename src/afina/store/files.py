"""Rows of files. The bytes are in the blob store; `filename` is never used on the disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.files import FileStatus, Purpose, StoredFile
from afina.domain.pages import Page
from afina.store.database import Tx
from afina.store.ordering import next_order, read_page, row_by_id, values_of
from afina.store.tables import FILES


@dataclass(frozen=True)
class FileQuery:
    """Which files a list shows."""

    purpose: str | None = None
    limit: int = 10_000
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


def file_of(row: Row[Any]) -> StoredFile:
    """The value that a row holds."""
    held = values_of(row, FILES)
    values = {name: held[name] for name in StoredFile.__dataclass_fields__}
    values |= {"purpose": Purpose(held["purpose"]), "status": FileStatus(held["status"])}
    return StoredFile(**values)


def insert_file(tx: Tx, file: StoredFile, caller: Caller, now: float) -> None:
    """Adds a file of the caller's; its blob is admitted already."""
    values = {name: encode(getattr(file, name)) for name in StoredFile.__dataclass_fields__}
    values |= {
        "organization_id": caller.organization_id,
        "order_key": next_order(tx, FILES, now),
    }
    tx.execute(insert(FILES).values(values))


def get_file(tx: Tx, file_id: str, project_id: str | None = None) -> StoredFile | None:
    """The file, if it belongs to the project (any project where None is given)."""
    query = row_by_id(FILES, owned=project_id is not None)
    row = tx.execute(query, {"id": file_id, "project": project_id}).one_or_none()
    return None if row is None else file_of(row)


def list_files(tx: Tx, project_id: str, query: FileQuery, now: int) -> Page[StoredFile]:
    """A page of the project's files that are not expired, in the order of their creation."""
    where = and_(FILES.c.project_id == project_id, ~_expired(now))
    if query.purpose is not None:
        where = and_(where, FILES.c.purpose == query.purpose)
    ascending = query.order == "asc"
    rows, more = read_page(
        tx, FILES, where, after=query.after, limit=query.limit, ascending=ascending
    )
    return Page(tuple(file_of(row) for row in rows), more)


def names_of(tx: Tx, project_id: str, file_ids: Collection[str]) -> dict[str, str]:
    """The names of those of the project's files that are there, by id."""
    query = select(FILES.c.id, FILES.c.filename).where(
        FILES.c.project_id == project_id, FILES.c.id.in_(file_ids)
    )
    return {row.id: row.filename for row in tx.execute(query)}


def expired_files(tx: Tx, now: int, limit: int = 500) -> list[StoredFile]:
    """Files whose time is over, of every project."""
    query = select(FILES).where(_expired(now))
    return [file_of(row) for row in tx.execute(query.order_by(FILES.c.expires_at).limit(limit))]


def delete_file_row(tx: Tx, file_id: str) -> None:
    """Removes the row; the blob follows after the commit."""
    tx.execute(delete(FILES).where(FILES.c.id == file_id))


def _expired(now: int) -> ColumnElement[bool]:
    return and_(FILES.c.expires_at.is_not(None), FILES.c.expires_at <= now)
