"""Rows of jobs: insert, read, list, and moves by compare-and-set along the table of moves.

A worker's writes carry its fence and are refused when a newer worker holds the job. What a user
does (`wish_for`, `cancel_unheld`) needs no fence: it stands in a write transaction of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack, cast

import msgspec
from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    and_,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from afina.domain.accounts import Caller
from afina.domain.codec import decode, encode
from afina.domain.integrations import decode_all
from afina.domain.jobs import (
    TRANSITIONS,
    Hyperparameters,
    Job,
    JobError,
    JobStatus,
    Wish,
)
from afina.domain.methods import Extension
from afina.domain.pages import Page
from afina.errors import IllegalTransition, NotFound, StaleFence
from afina.store.account_tables import HOLDS
from afina.store.database import Tx
from afina.store.ordering import Ordered, next_order, read_page, row_by_id, values_of
from afina.store.tables import JOB_LABELS, JOBS

_LIVE = tuple(status for status in JobStatus if not status.is_terminal)
_PLAIN = frozenset(Job.__dataclass_fields__) - {
    "status",
    "hyperparameters",
    "extension",
    "integrations",
    "result_files",
    "error",
    "wish",
}
_NO_LEASE: Mapping[str, Any] = {"lease_owner": None, "lease_expires_at": None}


class JobChanges(TypedDict, total=False):
    """What a worker may change in a job besides its status."""

    stage: str
    hyperparameters: Hyperparameters
    started_at: int | None
    finished_at: int | None
    estimated_finish: int | None
    fine_tuned_model: str | None
    trained_tokens: int | None
    result_files: tuple[str, ...]
    error: JobError | None
    attempt: int


def job_of(row: Row[Any]) -> Job:
    """The value that a row holds."""
    values = values_of(row, JOBS)
    return Job(
        **{name: values[name] for name in _PLAIN},
        status=JobStatus(values["status"]),
        hyperparameters=_hyperparameters(msgspec.json.encode(values["hyperparameters"])),
        extension=_extension(msgspec.json.encode(values["extension"] or {})),
        integrations=decode_all(values["integrations"] or []),
        result_files=tuple(values["result_files"]),
        error=None if values["error"] is None else decode(JobError, values["error"], "error"),
        wish=None if values["wish"] is None else Wish(values["wish"]),
    )


# Most jobs of a page ask for the same, and what comes out is never changed.
@functools.lru_cache(1024)
def _hyperparameters(text: bytes) -> Hyperparameters:
    return decode(Hyperparameters, msgspec.json.decode(text), "hyperparameters")


@functools.lru_cache(1024)
def _extension(text: bytes) -> Extension:
    return decode(Extension, msgspec.json.decode(text), "extension")


def insert_job(tx: Tx, job: Job, caller: Caller, now: float) -> None:
    """Adds a new job of the caller's."""
    values = {name: encode(getattr(job, name)) for name in Job.__dataclass_fields__}
    values |= {
        "organization_id": caller.organization_id,
        "key_id": caller.key_id,
        "order_key": next_order(tx, JOBS, now),
    }
    tx.execute(insert(JOBS).values(values))
    if job.metadata:
        its = {name: values[name] for name in ("project_id", "order_key")} | {"job_id": job.id}
        pairs = [{**its, "key": key, "value": value} for key, value in job.metadata.items()]
        tx.execute(insert(JOB_LABELS), pairs)


def get_job(tx: Tx, job_id: str, project_id: str | None = None) -> Job | None:
    """The job, if it belongs to the project (any project where None is given)."""
    query = row_by_id(JOBS, owned=project_id is not None)
    row = tx.execute(query, {"id": job_id, "project": project_id}).one_or_none()
    return None if row is None else job_of(row)


def caller_of(tx: Tx, job_id: str) -> Caller:
    """Who created the job. Raises NotFound."""
    columns = (JOBS.c.project_id, JOBS.c.key_id, JOBS.c.organization_id)
    row = tx.execute(select(*columns).where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise _gone(job_id)
    return Caller(row.project_id, row.key_id or "", row.organization_id)


def list_jobs(
    tx: Tx, project_id: str, after: str | None, limit: int, metadata: Mapping[str, str] | None
) -> Page[Job]:
    """Newest first; `metadata` as in `service.jobs.list_jobs`."""
    where: ColumnElement[bool] = JOBS.c.project_id == project_id
    if metadata is not None and not metadata:
        where = and_(where, ~exists().where(JOB_LABELS.c.job_id == JOBS.c.id))
    listed: Table | Ordered = JOBS
    for key, value in (metadata or {}).items():
        pair = JOB_LABELS.alias().c
        where = and_(
            where, pair.job_id == JOBS.c.id, pair.project_id == project_id, pair.key == key,
            pair.value == value,
        )  # fmt: skip
        if listed is JOBS:  # one index finds the pair's jobs and orders them
            listed = Ordered(JOBS, pair.order_key, pair.job_id)
    rows, more = read_page(tx, listed, where, after=after, limit=limit)
    return Page(tuple(job_of(row) for row in rows), more)


def jobs_using_file(tx: Tx, file_id: str, *, live_only: bool = False) -> list[Job]:
    """Jobs that train on the file or validate with it."""
    query = select(JOBS).where(
        or_(JOBS.c.training_file == file_id, JOBS.c.validation_file == file_id)
    )
    if live_only:
        query = query.where(JOBS.c.status.in_(_LIVE))
    return [job_of(row) for row in tx.execute(query.order_by(JOBS.c.order_key))]


def jobs_in(tx: Tx, statuses: Sequence[JobStatus]) -> list[Job]:
    """All jobs in one of `statuses`, oldest first, of every project."""
    query = select(JOBS).where(JOBS.c.status.in_(statuses)).order_by(JOBS.c.order_key, JOBS.c.id)
    return [job_of(row) for row in tx.execute(query)]


def is_any_in(tx: Tx, statuses: Sequence[JobStatus]) -> bool:
    """Whether some job of any project is in one of `statuses`: a cheap look before a claim."""
    return bool(tx.execute(select(exists().where(JOBS.c.status.in_(statuses)))).scalar())


def require_fence(tx: Tx, job_id: str, fence: int) -> JobStatus:
    """Locks the job's row for this transaction and checks that `fence` still holds it. Raises
    StaleFence, NotFound."""
    row = tx.execute(
        select(JOBS.c.fence, JOBS.c.status).where(JOBS.c.id == job_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise _gone(job_id)
    if row.fence != fence:
        raise StaleFence(f"Another worker has taken over the job {job_id}.")
    return JobStatus(row.status)


def move_job(
    tx: Tx, job_id: str, fence: int, target: JobStatus, **changes: Unpack[JobChanges]
) -> Job:
    """Moves a job to `target`; a terminal state ends the lease. Raises StaleFence,
    IllegalTransition, NotFound."""
    sources = [status for status in JobStatus if target in TRANSITIONS[status]]
    values: dict[str, Any] = {"status": target.value, **_encoded(changes)}
    if target.is_terminal:
        values |= {**_NO_LEASE, "estimated_finish": None}
    moved = _compare_and_set(tx, job_id, fence, sources, values, f"become {target.value}")
    if target.is_terminal:
        _end_hold(tx, job_id)
    return moved


def update_job(tx: Tx, job_id: str, fence: int, **changes: Unpack[JobChanges]) -> Job:
    """Changes a job that is not terminal. Raises StaleFence, IllegalTransition, NotFound."""
    return _compare_and_set(tx, job_id, fence, _LIVE, _encoded(changes), "be changed")


def wish_for(tx: Tx, job_id: str, wish: Wish | None) -> Job:
    """Leaves a wish for the worker that holds the job. Raises NotFound."""
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.status.in_(_LIVE))
        .values(wish=None if wish is None else wish.value)
        .returning(JOBS)
    ).one_or_none()
    if row is None:
        raise _gone(job_id)
    return job_of(row)


def cancel_unheld(tx: Tx, job_id: str, now: float) -> Job | None:
    """Cancels a job that no worker holds; None if one does, or if the job is over. The fence is
    raised, so that a worker which slept past its lease can change nothing."""
    held = and_(JOBS.c.lease_owner.is_not(None), JOBS.c.lease_expires_at > now)
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.status.in_(_LIVE), ~held)
        .values(
            status=JobStatus.CANCELLED.value,
            finished_at=int(now),
            estimated_finish=None,
            fence=JOBS.c.fence + 1,
            **_NO_LEASE,
        )
        .returning(JOBS)
    ).one_or_none()
    if row is None:
        return None
    _end_hold(tx, job_id)
    return job_of(row)


def pause_unheld(tx: Tx, job_id: str, now: float) -> Job | None:
    """Pauses a queued job that no worker holds; None if one does, or if it is not queued."""
    held = and_(JOBS.c.lease_owner.is_not(None), JOBS.c.lease_expires_at > now)
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.status == JobStatus.QUEUED.value, ~held)
        .values(
            status=JobStatus.PAUSED.value,
            stage="paused",
            estimated_finish=None,
            fence=JOBS.c.fence + 1,
            **_NO_LEASE,
        )
        .returning(JOBS)
    ).one_or_none()
    return None if row is None else job_of(row)


def requeue_paused(tx: Tx, job_id: str) -> Job | None:
    """Queues a paused job again; None if it is not paused."""
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.status == JobStatus.PAUSED.value)
        .values(status=JobStatus.QUEUED.value, stage="queued", wish=None)
        .returning(JOBS)
    ).one_or_none()
    return None if row is None else job_of(row)


def _end_hold(tx: Tx, job_id: str) -> None:
    """What the job cost stands in the ledger when this transaction is over, or it cost nothing."""
    tx.execute(delete(HOLDS).where(HOLDS.c.job_id == job_id))


def delete_job_row(tx: Tx, job_id: str) -> None:
    """Removes the job with its labels, events, offsets and checkpoints."""
    tx.execute(delete(JOBS).where(JOBS.c.id == job_id))


def _compare_and_set(
    tx: Tx,
    job_id: str,
    fence: int,
    sources: Sequence[JobStatus],
    values: Mapping[str, Any],
    wanted: str,
) -> Job:
    if values:
        statement = (
            update(JOBS)
            .where(JOBS.c.id == job_id, JOBS.c.fence == fence, JOBS.c.status.in_(sources))
            .values(**values)
            .returning(JOBS)
        )
        row = tx.execute(statement).one_or_none()
        if row is not None:
            return job_of(row)
    status = require_fence(tx, job_id, fence)
    if values or status not in sources:
        raise IllegalTransition(f"The job {job_id} is {status.value} and cannot {wanted}.")
    return cast(Job, get_job(tx, job_id))


def _encoded(changes: JobChanges) -> dict[str, Any]:
    return {name: encode(value) for name, value in changes.items()}


def _gone(job_id: str) -> NotFound:
    return NotFound(
        f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found"
    )
