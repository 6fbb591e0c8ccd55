"""Leases: which worker holds which job, and the fence that keeps sleepers out.

`claim_job` is one statement: no two workers can get the same job. Each claim raises the job's
fence; every later write of that worker carries it, and a write under an old fence is refused
(StaleFence). `now` comes from the caller's clock: one clock on one host.
"""

from __future__ import annotations

from collections.abc import Sequence

from afina.domain.jobs import Job, JobStatus, Wish
from afina.store.database import Tx


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
    a dead owner. Raises its fence and attempt by one."""
    raise NotImplementedError


def beat(tx: Tx, job_id: str, fence: int, now: float, lease_s: float) -> Wish | None:
    """Renews the lease and says what the user wishes. Raises StaleFence."""
    raise NotImplementedError


def release(tx: Tx, job_id: str, fence: int) -> None:
    """Gives the lease back; the job may be claimed at once. Raises StaleFence."""
    raise NotImplementedError


def lease_owners(tx: Tx) -> list[str]:
    """The owners of all leases that stand, for a look at which of them are dead."""
    raise NotImplementedError
