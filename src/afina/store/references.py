"""Who refers to which blob, and the only two ways in which bytes come and go.

`admit` names staged bytes inside the write transaction that adds the reference; `remove_blob` runs
in a write transaction of its own, after the references are gone and committed, looks again, and
removes the bytes inside it. So no order of the two can leave a reference without bytes; a crash
between them leaves bytes without a reference, which the sweep finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, exists, select

from afina.store.blobs import LocalBlobs, StagedBlob
from afina.store.database import Database, Tx
from afina.store.dialects import insert_new, lock_name
from afina.store.tables import BLOB_REFS, BLOBS


@dataclass(frozen=True)
class Holder:
    """What refers to a blob: a file by id, a model by name, a job before it has a model, or an
    upload that still takes parts."""

    kind: Literal["file", "model", "job", "upload"]
    id: str


def admit(tx: Tx, blobs: LocalBlobs, staged: StagedBlob, holder: Holder, now: int) -> None:
    """Names the staged bytes and lets `holder` refer to them."""
    lock_name(tx, staged.sha256)
    blobs.place(staged)
    row = {"sha256": staged.sha256, "bytes": staged.size_bytes, "created_at": now}
    insert_new(tx, BLOBS, [row])
    add_reference(tx, staged.sha256, holder)


def add_reference(tx: Tx, sha256: str, holder: Holder) -> None:
    """Lets `holder` refer to a blob that another holder refers to as well."""
    row = {"sha256": sha256, "holder_kind": holder.kind, "holder_id": holder.id}
    insert_new(tx, BLOB_REFS, [row])


def drop_references(tx: Tx, holder: Holder) -> list[str]:
    """Ends all references of `holder`; returns the blobs, to be removed after the commit."""
    where = (BLOB_REFS.c.holder_kind == holder.kind, BLOB_REFS.c.holder_id == holder.id)
    return sorted(
        tx.execute(delete(BLOB_REFS).where(*where).returning(BLOB_REFS.c.sha256)).scalars()
    )


def references_of(tx: Tx, holder: Holder) -> list[str]:
    """The blobs that `holder` refers to."""
    where = (BLOB_REFS.c.holder_kind == holder.kind, BLOB_REFS.c.holder_id == holder.id)
    return sorted(tx.execute(select(BLOB_REFS.c.sha256).where(*where)).scalars())


def is_referred_to(tx: Tx, sha256: str) -> bool:
    """Whether anything refers to the blob."""
    return bool(tx.execute(select(exists().where(BLOB_REFS.c.sha256 == sha256))).scalar())


def holder_ids(tx: Tx, kind: Literal["file", "model", "job"]) -> list[str]:
    """The ids of all holders of that kind."""
    query = select(BLOB_REFS.c.holder_id).where(BLOB_REFS.c.holder_kind == kind).distinct()
    return sorted(tx.execute(query).scalars())


def remove_blob(database: Database, blobs: LocalBlobs, sha256: str) -> int:
    """Removes the blob if nothing refers to it; returns how many bytes that freed."""
    with database.write() as tx:
        lock_name(tx, sha256)
        if is_referred_to(tx, sha256):
            return 0
        path = blobs.path(sha256)
        size = path.stat().st_size if path.exists() else 0
        blobs.unlink(sha256)
        tx.execute(delete(BLOBS).where(BLOBS.c.sha256 == sha256))
    return size


def remove_blobs(database: Database, blobs: LocalBlobs, hashes: Sequence[str]) -> int:
    """`remove_blob` for several."""
    return sum(remove_blob(database, blobs, sha256) for sha256 in hashes)
