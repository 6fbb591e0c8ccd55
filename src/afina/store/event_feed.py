"""Events of a job from a place on, oldest first: what a reader needs who follows a job."""

from __future__ import annotations

from sqlalchemy import func, select

from afina.domain.events import JobEvent
from afina.store.database import Tx
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
    return [
        (
            row.order_key,
            JobEvent(
                id=row.id,
                job_id=row.job_id,
                created_at=row.created_at,
                level=row.level,
                message=row.message,
                type=row.type,
                data=row.data,
                source=row.source,
                sequence=row.sequence,
            ),
        )
        for row in tx.execute(query)
    ]
