"""Rows of jobs: insert, read, list, and moves by compare-and-set along `domain.jobs.TRANSITIONS`."""

from __future__ import annotations

from typing import TypedDict, Unpack

from afina.domain.jobs import Hyperparameters, Job, JobError, JobStatus
from afina.store.database import Tx


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


def get_job(tx: Tx, job_id: str, project_id: str | None = None) -> Job | None:
    """The job, if it belongs to the project (any project where None is given)."""
    raise NotImplementedError


def move_job(
    tx: Tx, job_id: str, fence: int, target: JobStatus, **changes: Unpack[JobChanges]
) -> Job:
    """Moves a job to `target`; a terminal state ends the lease. Raises StaleFence,
    IllegalTransition, NotFound."""
    raise NotImplementedError


def update_job(tx: Tx, job_id: str, fence: int, **changes: Unpack[JobChanges]) -> Job:
    """Changes a job that is not terminal. Raises StaleFence, IllegalTransition, NotFound."""
    raise NotImplementedError
