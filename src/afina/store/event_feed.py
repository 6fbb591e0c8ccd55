"""Events of a job from a place on, oldest first: what a reader needs who follows a job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, func, select

from afina.domain.events import JobEvent
from afina.store.database import Tx
from afina.store.events import said_of
from afina.store.tables import JOB_EVENTS


def last_place(tx: Tx, job_id: str) -> int:
    """The place of the job's newest event; 0 where there is none."""
    query = select(func.max(JOB_EVENTS.c.order_key)).where(JOB_EVENTS.c.job_id == job_id)
    return int(tx.execute(query).scalar() or 0)


def events_after(tx: Tx, job_id: str, place: int, limit: int) -> list[tuple[int, JobEvent]]:
    """Up to `limit` events after `place`, each with its own place."""
    query = (
        select(JOB_EVENTS)
        .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.order_key > place)
        .order_by(JOB_EVENTS.c.order_key)
        .limit(limit)
    )
    return [(row.order_key, _event(row)) for row in tx.execute(query)]


def metrics_of(tx: Tx, job_id: str) -> list[dict[str, Any]]:
    """The numbers of every step so far, oldest first, and nothing else of their events."""
    query = (
        select(JOB_EVENTS.c.data)
        .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.type == "metrics")
        .order_by(JOB_EVENTS.c.order_key)
    )
    return list(tx.execute(query).scalars())


def last_metrics(tx: Tx, job_id: str) -> dict[str, Any] | None:
    """The numbers of the newest step."""
    query = (
        select(JOB_EVENTS.c.data)
        .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.type == "metrics")
        .order_by(JOB_EVENTS.c.order_key.desc())
        .limit(1)
    )
    return tx.execute(query).scalars().first()


def messages_of(tx: Tx, job_id: str, limit: int) -> list[JobEvent]:
    """What was said that is no step's numbers, newest first."""
    query = (
        select(JOB_EVENTS)
        .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.type != "metrics")
        .order_by(JOB_EVENTS.c.order_key.desc())
        .limit(limit)
    )
    return [_event(row) for row in tx.execute(query)]


def _event(row: Row[Any]) -> JobEvent:
    return JobEvent(
        id=row.id,
        job_id=row.job_id,
        created_at=row.created_at,
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
        source=row.source,
        sequence=row.sequence,
        said=said_of(row.said),
    )
