"""Rows of uploads and their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.uploads import Upload, UploadPart, UploadStatus
from afina.store.database import Tx
from afina.store.ordering import next_order
from afina.store.wire_tables import UPLOAD_PARTS, UPLOADS


def insert_upload(tx: Tx, upload: Upload, caller: Caller, now: float) -> None:
    """Adds an upload of the caller's."""
    values: dict[str, Any] = encode(upload)
    values |= {
        "organization_id": caller.organization_id,
        "order_key": next_order(tx, UPLOADS, now),
    }
    tx.execute(insert(UPLOADS).values(values))


def get_upload(tx: Tx, upload_id: str, project_id: str, *, lock: bool = False) -> Upload | None:
    """The upload, if it belongs to the project; `lock` holds its row for this transaction."""
    query = select(UPLOADS).where(UPLOADS.c.id == upload_id, UPLOADS.c.project_id == project_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _upload(row)


def end_upload(tx: Tx, upload_id: str, status: UploadStatus, file_id: str | None = None) -> None:
    """Ends the upload and drops its parts' rows."""
    values = {"status": status.value, "file_id": file_id}
    tx.execute(update(UPLOADS).where(UPLOADS.c.id == upload_id).values(**values))
    tx.execute(delete(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id))


def insert_part(tx: Tx, part: UploadPart) -> None:
    """Adds a part."""
    tx.execute(insert(UPLOAD_PARTS).values(encode(part)))


def get_parts(tx: Tx, upload_id: str, part_ids: Sequence[str]) -> Mapping[str, UploadPart]:
    """Those of the named parts that belong to the upload, by id."""
    query = select(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id)
    wanted = set(part_ids)
    return {row.id: _part(row) for row in tx.execute(query) if row.id in wanted}


def received_bytes(tx: Tx, upload_id: str) -> int:
    """The bytes of all parts that have come."""
    query = select(func.coalesce(func.sum(UPLOAD_PARTS.c.bytes), 0))
    return int(tx.execute(query.where(UPLOAD_PARTS.c.upload_id == upload_id)).scalar_one())


def overdue_uploads(tx: Tx, now: int) -> list[tuple[str, str]]:
    """Ids and projects of uploads that wait for parts after their time."""
    query = select(UPLOADS.c.id, UPLOADS.c.project_id).where(
        UPLOADS.c.status == UploadStatus.PENDING.value, UPLOADS.c.expires_at <= now
    )
    return [(row.id, row.project_id) for row in tx.execute(query)]


def drop_ended(tx: Tx, before: int) -> int:
    """Removes the rows of uploads that were made before then and are over."""
    where = (UPLOADS.c.status != UploadStatus.PENDING.value, UPLOADS.c.created_at < before)
    return tx.execute(delete(UPLOADS).where(*where)).rowcount


def _upload(row: Row[Any]) -> Upload:
    values = {name: getattr(row, name) for name in Upload.__dataclass_fields__}
    return Upload(**{**values, "status": UploadStatus(row.status)})


def _part(row: Row[Any]) -> UploadPart:
    return UploadPart(**{name: getattr(row, name) for name in UploadPart.__dataclass_fields__})
