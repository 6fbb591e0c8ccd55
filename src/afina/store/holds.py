"""Rows of holds: what jobs under way may still cost, in the order in which it was promised.

A hold goes with its job: `store.jobs` removes it where a job ends, and deleting a job does.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update

from afina.domain.codec import encode
from afina.domain.jobs import JobStatus
from afina.domain.limits import Hold
from afina.store.account_tables import HOLDS
from afina.store.database import Tx
from afina.store.dialects import lock_name
from afina.store.ordering import next_order
from afina.store.tables import JOBS

_LIVE = tuple(status for status in JobStatus if not status.is_terminal)
_NAMES = tuple(Hold.__dataclass_fields__)


def take_turns(tx: Tx, organization_id: str) -> None:
    """Until the end of the transaction nobody else is promised anything of the organization's."""
    lock_name(tx, f"holds of {organization_id}")


def put_hold(tx: Tx, hold: Hold, now: float) -> None:
    """Writes the job's hold, behind all others; one that is there keeps its place."""
    values = encode(hold)
    del values["job_id"], values["begun"]
    where = HOLDS.c.job_id == hold.job_id
    if tx.execute(update(HOLDS).where(where).values(values)).rowcount == 0:
        order = next_order(tx, HOLDS, now)
        tx.execute(insert(HOLDS).values({**encode(hold), "order_key": order}))


def to_the_end(tx: Tx, job_id: str, now: float) -> None:
    """Puts the job's hold, if there is one, behind all others."""
    order = next_order(tx, HOLDS, now)
    tx.execute(update(HOLDS).where(HOLDS.c.job_id == job_id).values(order_key=order))


def note_begun(tx: Tx, job_id: str, epochs: int) -> None:
    """Notes that so many epochs have begun; never fewer than before."""
    where = (HOLDS.c.job_id == job_id, HOLDS.c.begun < epochs)
    tx.execute(update(HOLDS).where(*where).values(begun=epochs))


def list_holds(tx: Tx, organization_id: str) -> list[tuple[Hold, JobStatus]]:
    """The organization's holds with the states of their jobs, the oldest promise first."""
    query = (
        select(*(HOLDS.c[name] for name in _NAMES), JOBS.c.status)
        .join(JOBS, JOBS.c.id == HOLDS.c.job_id)
        .where(HOLDS.c.organization_id == organization_id, JOBS.c.status.in_(_LIVE))
        .order_by(HOLDS.c.order_key)
    )
    return [
        (Hold(**{name: getattr(row, name) for name in _NAMES}), JobStatus(row.status))
        for row in tx.execute(query)
    ]
