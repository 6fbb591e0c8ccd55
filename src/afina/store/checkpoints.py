"""Rows of the checkpoints that jobs kept; they stay when the model they name is deleted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, select, update

from afina.domain.codec import encode
from afina.domain.jobs import JobCheckpoint
from afina.domain.pages import Page
from afina.errors import InvalidRequest
from afina.store.database import Tx
from afina.store.tables import CHECKPOINTS


def insert_checkpoint(tx: Tx, checkpoint: JobCheckpoint) -> None:
    """Adds a checkpoint; a job has one a step."""
    names = JobCheckpoint.__dataclass_fields__
    tx.execute(insert(CHECKPOINTS).values({n: encode(getattr(checkpoint, n)) for n in names}))


def checkpoint_at(tx: Tx, job_id: str, step: int) -> JobCheckpoint | None:
    """The job's checkpoint at that step, if it has one already."""
    columns = CHECKPOINTS.c
    query = select(CHECKPOINTS).where(columns.job_id == job_id, columns.step == step)
    row = tx.execute(query).one_or_none()
    return None if row is None else _checkpoint(row)


def rename_checkpoint(tx: Tx, id_: str, model: str) -> None:
    """The checkpoint answers to another model from now on."""
    tx.execute(update(CHECKPOINTS).where(CHECKPOINTS.c.id == id_).values(model=model))


def list_checkpoints(tx: Tx, job_id: str, after: str | None, limit: int) -> Page[JobCheckpoint]:
    """Highest step first. Raises InvalidRequest where `after` is none of them."""
    columns = CHECKPOINTS.c
    query = select(CHECKPOINTS).where(columns.job_id == job_id)
    if after is not None:
        mark = select(columns.step).where(columns.job_id == job_id, columns.id == after)
        step = tx.execute(mark).scalar()
        if step is None:
            raise InvalidRequest(
                f"There is no {after} in this list to go on after.",
                param="after",
                remedy="Start again without `after`.",
            )
        query = query.where(columns.step < step)
    rows = list(tx.execute(query.order_by(columns.step.desc()).limit(limit + 1)))
    return Page(tuple(_checkpoint(row) for row in rows[:limit]), len(rows) > limit)


def _checkpoint(row: Row[Any]) -> JobCheckpoint:
    return JobCheckpoint(**{n: getattr(row, n) for n in JobCheckpoint.__dataclass_fields__})
