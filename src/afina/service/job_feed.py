"""What is new of a job since a place in its events: for pages that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.domain.events import JobEvent
from afina.domain.jobs import Job, JobStatus
from afina.errors import NotFound
from afina.service.platform import Platform
from afina.service.preparing import prepared_share
from afina.store import event_feed, jobs

MOST: Final = 5000
"""Events that one look gives."""


@dataclass(frozen=True)
class News:
    """The job as it is, and the events from `start` (not with it) up to `end`, oldest first."""

    job: Job
    start: int
    end: int
    events: tuple[JobEvent, ...]
    share: float | None = None
    """How much of its preparation's stage is done, where that is known."""

    @property
    def is_more(self) -> bool:
        """Whether another look gives more at once."""
        return len(self.events) == MOST


def news_of(platform: Platform, caller: Caller, job_id: str, after: int = 0) -> News:
    """What is new after the place `after`. Raises NotFound."""
    with platform.database.read() as tx:
        job = jobs.get_job(tx, job_id, caller.project_id)
        if job is None:
            raise NotFound(f"There is no job {job_id[:64]}.", param="id")
        found = event_feed.events_after(tx, job_id, after, MOST)
    end = found[-1][0] if found else after
    share = None
    if job.status is JobStatus.VALIDATING:
        share = prepared_share(platform.settings.runs / job.id, job.stage)
    return News(job, after, end, tuple(event for _, event in found), share)


@dataclass(frozen=True)
class Overview:
    """A job at one moment: its newest step, what was said of it, newest first, and the place from
    which news go on."""

    news: News
    last: dict[str, Any] | None
    messages: tuple[JobEvent, ...]


def overview_of(platform: Platform, caller: Caller, job_id: str, messages: int) -> Overview:
    """A job without the numbers of all its steps. Raises NotFound."""
    with platform.database.read() as tx:
        end = event_feed.last_place(tx, job_id)
        last = event_feed.last_metrics(tx, job_id)
        said = tuple(event_feed.messages_of(tx, job_id, messages))
    return Overview(news_of(platform, caller, job_id, end), last, said)


def last_step(platform: Platform, caller: Caller, job_id: str) -> dict[str, Any] | None:
    """The numbers of a job's newest step. Raises NotFound."""
    with platform.database.read() as tx:
        if jobs.get_job(tx, job_id, caller.project_id) is None:
            raise NotFound(f"There is no job {job_id[:64]}.", param="id")
        return event_feed.last_metrics(tx, job_id)


def steps_of(platform: Platform, caller: Caller, job_id: str) -> tuple[News, list[dict[str, Any]]]:
    """The numbers of all steps so far, oldest first; news go on from where the first part ends.
    Raises NotFound."""
    with platform.database.read() as tx:
        end = event_feed.last_place(tx, job_id)
        found = event_feed.metrics_of(tx, job_id)
    return news_of(platform, caller, job_id, end), found
