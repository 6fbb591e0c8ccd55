"""What is new of a job since a place in its events: for pages that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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


def all_news(platform: Platform, caller: Caller, job_id: str) -> News:
    """Everything so far. Raises NotFound."""
    found = news_of(platform, caller, job_id)
    events = list(found.events)
    while found.is_more:
        found = news_of(platform, caller, job_id, found.end)
        events += found.events
    return News(found.job, 0, found.end, tuple(events), found.share)
