"""A copy of the database as it stands, made while others go on writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select, text

from afina.errors import UnsupportedField
from afina.store.database import Database, Tx
from afina.store.tables import BLOB_REFS


def snapshot(database: Database, target: Path) -> None:
    """Writes a whole, compact copy to `target`, which must not be there. Raises UnsupportedField
    for a database that is not a file."""
    if database.path is None:
        raise UnsupportedField(
            "The database is PostgreSQL, which has its own backups.",
            remedy="Use pg_dump for it, and copy the blobs beside it.",
        )
    with database.engine.connect() as connection:
        # VACUUM runs outside of any transaction.
        connection.exec_driver_sql("COMMIT")
        connection.execute(text("VACUUM INTO :target"), {"target": str(target)})
        connection.exec_driver_sql("BEGIN")


def referred_blobs(tx: Tx) -> Iterator[str]:
    """The hashes of all blobs that anything refers to."""
    query = select(BLOB_REFS.c.sha256).distinct().order_by(BLOB_REFS.c.sha256)
    yield from tx.execute(query).scalars()
