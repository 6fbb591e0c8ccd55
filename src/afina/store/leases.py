"""Leases: which worker holds which job, and the fence that keeps sleepers out.

`claim_job` is one statement: no two workers can get the same job. Each claim raises the job's
fence; every later write of that worker carries it, and a write under an old fence is refused
(StaleFence). `now` comes from the caller's clock: one clock on one host.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select, update

from afina.domain.jobs import Job, JobStatus, Wish
from afina.errors import StaleFence
from afina.store.database import Tx
from afina.store.jobs import job_of
from afina.store.tables import JOBS


def claim_job(
    tx: Tx,
    *,
    statuses: Sequence[JobStatus],
    owner: str,
    now: float,
    lease_s: float,
    dead_owners: Sequence[str] = (),
) -> Job | None:
    """The oldest job in one of `statuses` that nobody holds, or whose lease ran out or belongs to
    a dead owner. Raises its fence by one."""
    free = or_(
        JOBS.c.lease_owner.is_(None),
        JOBS.c.lease_expires_at <= now,
        JOBS.c.lease_owner.in_(dead_owners),
    )
    oldest = (
        select(JOBS.c.id)
        .where(JOBS.c.status.in_(statuses), free)
        .order_by(JOBS.c.order_key, JOBS.c.id)
        .limit(1)
        # On PostgreSQL two workers must not wait for the same row; SQLite has one writer anyway.
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == oldest)
        .values(
            lease_owner=owner,
            lease_expires_at=now + lease_s,
            heartbeat_at=now,
            fence=JOBS.c.fence + 1,
        )
        .returning(JOBS)
    ).one_or_none()
    return None if row is None else job_of(row)


def beat(tx: Tx, job_id: str, fence: int, now: float, lease_s: float) -> Wish | None:
    """Renews the lease and says what the user wishes. Raises StaleFence."""
    row = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.fence == fence, JOBS.c.lease_owner.is_not(None))
        .values(lease_expires_at=now + lease_s, heartbeat_at=now)
        .returning(JOBS.c.wish)
    ).one_or_none()
    if row is None:
        raise _stale(job_id)
    return None if row.wish is None else Wish(row.wish)


def release(tx: Tx, job_id: str, fence: int) -> None:
    """Gives the lease back; the job may be claimed at once. Raises StaleFence."""
    done = tx.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.fence == fence)
        .values(lease_owner=None, lease_expires_at=None)
    )
    if done.rowcount == 0:
        raise _stale(job_id)


def lease_owners(tx: Tx) -> list[str]:
    """The owners of all leases that stand, for a look at which of them are dead."""
    query = select(JOBS.c.lease_owner).where(JOBS.c.lease_owner.is_not(None)).distinct()
    return sorted(owner for owner in tx.execute(query).scalars() if owner is not None)


def _stale(job_id: str) -> StaleFence:
    return StaleFence(f"The lease on the job {job_id} is over or another worker has it.")
