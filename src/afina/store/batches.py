"""Rows of batches, their leases, and results of their lines until the output file is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, and_, delete, exists, insert, or_, select, update

from afina.domain.batches import LIVE, Batch, BatchStatus
from afina.domain.codec import encode
from afina.domain.pages import Page
from afina.errors import IllegalTransition, StaleFence
from afina.store.database import Tx
from afina.store.dialects import insert_new
from afina.store.ordering import next_order, read_page
from afina.store.wire_tables import BATCH_RESULTS, BATCHES

_B, _R = BATCHES.c, BATCH_RESULTS.c
_LIVE: Final = tuple(status.value for status in LIVE)
_PAGE: Final = 500


@dataclass(frozen=True)
class LineResult:
    """What became of a line, as the line of the output (or error) file says it."""

    line: int
    ok: bool
    result: str


def insert_batch(tx: Tx, batch: Batch, now: float) -> None:
    """Adds a batch."""
    values: dict[str, Any] = encode(batch)
    tx.execute(insert(BATCHES).values(**values, order_key=next_order(tx, BATCHES, now)))


def get_batch(tx: Tx, id: str, project_id: str | None = None) -> Batch | None:
    """The batch, if it belongs to the project (any project where None is given)."""
    query = select(BATCHES).where(_B.id == id)
    if project_id is not None:
        query = query.where(_B.project_id == project_id)
    row = tx.execute(query).one_or_none()
    return None if row is None else _batch(row)


def list_batches(tx: Tx, project_id: str, after: str | None, limit: int) -> Page[Batch]:
    """Newest first."""
    rows, more = read_page(tx, BATCHES, _B.project_id == project_id, after=after, limit=limit)
    return Page(tuple(_batch(row) for row in rows), more)


def is_file_in_use(tx: Tx, file_id: str) -> str | None:
    """The id of a batch that still reads the file."""
    query = select(_B.id).where(_B.input_file_id == file_id, _B.status.in_(_LIVE))
    found: str | None = tx.execute(query.limit(1)).scalar()
    return found


def is_any_live(tx: Tx) -> bool:
    """A cheap look before a claim."""
    return bool(tx.execute(select(exists().where(_B.status.in_(_LIVE)))).scalar())


def lease_owners(tx: Tx) -> list[str]:
    """The owners of all leases that stand."""
    query = select(_B.lease_owner).where(_B.lease_owner.is_not(None)).distinct()
    return sorted(owner for owner in tx.execute(query).scalars() if owner is not None)


def claim_batch(
    tx: Tx, owner: str, now: float, lease_s: float, dead_owners: Sequence[str] = ()
) -> Batch | None:
    """The oldest batch under way that nobody holds; raises its fence."""
    free = or_(
        _B.lease_owner.is_(None),
        _B.lease_expires_at <= now,
        _B.lease_owner.in_(dead_owners),
    )
    oldest = (
        select(_B.id)
        .where(_B.status.in_(_LIVE), free)
        .order_by(_B.order_key, _B.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = tx.execute(
        update(BATCHES)
        .where(_B.id == oldest)
        .values(lease_owner=owner, lease_expires_at=now + lease_s, fence=_B.fence + 1)
        .returning(BATCHES)
    ).one_or_none()
    return None if row is None else _batch(row)


def beat(tx: Tx, batch: Batch, now: float, lease_s: float) -> BatchStatus:
    """Renews the lease and says where the batch stands: its user may have cancelled it. Raises
    StaleFence."""
    row = tx.execute(
        update(BATCHES)
        .where(_holds(batch))
        .values(lease_expires_at=now + lease_s)
        .returning(_B.status)
    ).one_or_none()
    if row is None:
        raise _stale(batch.id)
    return BatchStatus(row.status)


def release(tx: Tx, batch: Batch) -> None:
    """Gives the lease back."""
    tx.execute(update(BATCHES).where(_holds(batch)).values(lease_owner=None, lease_expires_at=None))


def move_batch(
    tx: Tx, batch: Batch, sources: Sequence[BatchStatus], target: BatchStatus, **changes: Any
) -> Batch:
    """Moves a batch under its worker's fence; a terminal state ends the lease. Raises StaleFence,
    IllegalTransition."""
    values = {name: encode(value) for name, value in changes.items()}
    values["status"] = target.value
    if target.is_terminal:
        values |= {"lease_owner": None, "lease_expires_at": None}
    allowed = [status.value for status in sources]
    row = tx.execute(
        update(BATCHES)
        .where(_holds(batch), _B.status.in_(allowed))
        .values(**values)
        .returning(BATCHES)
    ).one_or_none()
    if row is not None:
        return _batch(row)
    found = get_batch(tx, batch.id)
    if found is None or found.fence != batch.fence:
        raise _stale(batch.id)
    raise IllegalTransition(f"The batch {batch.id} is {found.status.value}.")


def ask_to_cancel(tx: Tx, id: str, project_id: str, now: int) -> Batch | None:
    """Marks a live batch as cancelling; its worker does the rest. None where it is over."""
    open_ = (BatchStatus.VALIDATING.value, BatchStatus.IN_PROGRESS.value)
    row = tx.execute(
        update(BATCHES)
        .where(_B.id == id, _B.project_id == project_id, _B.status.in_(open_))
        .values(status=BatchStatus.CANCELLING.value, cancelling_at=now)
        .returning(BATCHES)
    ).one_or_none()
    return None if row is None else _batch(row)


def add_results(tx: Tx, batch: Batch, results: Sequence[LineResult]) -> int:
    """Keeps the results that are new, and counts them, under the fence; says how many were new.
    Raises StaleFence."""
    found = tx.execute(select(_B.id).where(_holds(batch)).with_for_update()).one_or_none()
    if found is None:
        raise _stale(batch.id)
    known = set(
        tx.execute(
            select(_R.line).where(
                _R.batch_id == batch.id, _R.line.in_([result.line for result in results])
            )
        ).scalars()
    )
    new = [result for result in results if result.line not in known]
    rows = [{"batch_id": batch.id, "line": r.line, "ok": r.ok, "result": r.result} for r in new]
    insert_new(tx, BATCH_RESULTS, rows)
    done = sum(result.ok for result in new)
    tx.execute(
        update(BATCHES)
        .where(_B.id == batch.id)
        .values(completed=_B.completed + done, failed=_B.failed + len(new) - done)
    )
    return len(new)


def done_lines(tx: Tx, batch_id: str) -> set[int]:
    """The lines that have a result."""
    return set(tx.execute(select(_R.line).where(_R.batch_id == batch_id)).scalars())


def read_results(tx: Tx, batch_id: str) -> Iterator[LineResult]:
    """All results in the order of the input, a page in memory at a time."""
    last = 0
    while True:
        query = (
            select(BATCH_RESULTS)
            .where(_R.batch_id == batch_id, _R.line > last)
            .order_by(_R.line)
            .limit(_PAGE)
        )
        rows = list(tx.execute(query))
        for row in rows:
            yield LineResult(row.line, row.ok, row.result)
        if len(rows) < _PAGE:
            return
        last = rows[-1].line


def drop_results(tx: Tx, batch_id: str) -> None:
    """Removes the results, once they are in files."""
    tx.execute(delete(BATCH_RESULTS).where(_R.batch_id == batch_id))


def _holds(batch: Batch) -> Any:
    return and_(_B.id == batch.id, _B.fence == batch.fence, _B.lease_owner.is_not(None))


def _batch(row: Row[Any]) -> Batch:
    values = {name: getattr(row, name) for name in Batch.__dataclass_fields__}
    values["status"] = BatchStatus(row.status)
    values["errors"] = None if row.errors is None else tuple(row.errors)
    return Batch(**values)


def _stale(batch_id: str) -> StaleFence:
    return StaleFence(f"Another worker has taken over the batch {batch_id}.")
