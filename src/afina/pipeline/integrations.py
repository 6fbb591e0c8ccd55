"""The lane that tells trackers how jobs go.

Each integration of a job is an item of the outbox, written with the job, that comes back until the
job is over and all is told. Trackers may be slow or away: the lane is their own, a failure is told
once as a warning of the job, and the turn comes again with growing pauses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from afina.domain.events import JobEvent, Level
from afina.domain.ids import EVENT
from afina.domain.integrations import Integration, Told, Wandb
from afina.domain.jobs import Job
from afina.domain.sayings import Said, say
from afina.errors import AfinaError
from afina.pipeline.faults import fault_of
from afina.pipeline.trackers import tell
from afina.service import integrations
from afina.service.platform import Platform
from afina.store import events, jobs, outbox
from afina.store.outbox import OutboxItem

EVERY_S: Final = 1.0
IDLE_S: Final = 5.0
"""Until a job is looked at again that has not started, or says nothing new."""
WANDB_EVERY_S: Final = 60.0
"""Between two rounds of their client: each costs a process some seconds."""
GIVE_UP_S: Final = 24 * 3600
ROWS: Final = 5000
"""Steps told in one round."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Progress:
    """The payload of an item: how far a tracker was told."""

    job: str
    number: int
    after: int = 0
    """The place in the job's events."""
    run: str | None = None
    fails: int = 0
    failing_since: int | None = None

    @classmethod
    def of(cls, payload: Mapping[str, str]) -> Progress:
        since = payload.get("since")
        return cls(
            job=payload["job"],
            number=int(payload["number"]),
            after=int(payload.get("after", "0")),
            run=payload.get("run"),
            fails=int(payload.get("fails", "0")),
            failing_since=None if since is None else int(since),
        )

    def payload(self) -> dict[str, str]:
        """The same as the outbox keeps it."""
        said = {"job": self.job, "number": str(self.number), "after": str(self.after)}
        if self.run is not None:
            said["run"] = self.run
        if self.failing_since is not None:
            said |= {"fails": str(self.fails), "since": str(self.failing_since)}
        return said


class IntegrationLane:
    """Takes trackers whose turn it is, one after another."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def work(self) -> bool:
        """One item; False where none was due."""
        now = self._platform.clock.now()
        with self._platform.database.read() as tx:
            if not outbox.is_any_due(tx, now, slow=True):
                return False
        lease_s = 2 * self._platform.settings.integrations.timeout_s + 60
        with self._platform.database.write() as tx:
            items = outbox.claim_items(tx, now, lease_s, 1, slow=True)
        for item in items:
            self._take(item, Progress.of(item.payload))
        return bool(items)

    def _take(self, item: OutboxItem, progress: Progress) -> None:
        with self._platform.database.read() as tx:
            job = jobs.get_job(tx, progress.job)
        if job is None or (job.started_at is None and job.status.is_terminal):
            self._done(item)
            return
        one = job.integrations[progress.number]
        if job.started_at is None or not (job.status.is_terminal or self._is_live(one)):
            self._later(item, progress, IDLE_S)
            return
        try:
            self._tell(item, progress, job, one)
        except AfinaError as error:
            self._failed(item, progress, job, error.message)
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("integration.fault", job=job.id, type=one.type, **fault_of(error))
            self._failed(item, progress, job, "an internal error")

    def _is_live(self, one: Integration) -> bool:
        """Whether the tracker is told while the job goes on; runs that are written for a later
        `wandb sync` are written once."""
        settings = self._platform.settings.integrations
        return not (isinstance(one, Wandb) and settings.wandb.mode == "offline")

    def _tell(self, item: OutboxItem, progress: Progress, job: Job, one: Integration) -> None:
        limit = ROWS if self._is_live(one) else None
        with self._platform.database.read() as tx:
            place, news = integrations.news_of(tx, job, one, progress.after, limit)
        over = job.status.is_terminal
        if progress.run is not None and not news.metrics and not over:
            self._later(item, progress, IDLE_S)
            return
        more = limit is not None and len(news.metrics) == limit
        if more and over:
            news = replace(news, state="running", outcome={})
        told = tell(self._platform.settings, one, news, progress.run)
        log.info("integration.told", job=job.id, type=one.type, steps=len(news.metrics))
        self._note(job, progress, told)
        if over and not more:
            self._done(item)
            return
        pause = 0.0 if more else WANDB_EVERY_S if isinstance(one, Wandb) else IDLE_S
        gone_on = Progress(progress.job, progress.number, place, told.run)
        self._later(item, gone_on, pause)

    def _note(self, job: Job, progress: Progress, told: Told) -> None:
        """The first time, the job says where its run can be seen."""
        if progress.run is None and told.said is not None:
            self._say(job, progress, 1, "info", told.said)

    def _failed(self, item: OutboxItem, progress: Progress, job: Job, reason: str) -> None:
        now = self._platform.now()
        since = progress.failing_since if progress.failing_since is not None else now
        place = job.integrations[progress.number].place
        log.warning("integration.failed", job=job.id, fails=progress.fails + 1)
        if job.status.is_terminal and now - max(since, job.finished_at or 0) >= GIVE_UP_S:
            said = say("tracker_given_up", place=place, reason=reason)
            self._say(job, progress, 3, "warn", said)
            self._done(item)
            return
        said = say("tracker_waits", place=place, reason=reason)
        self._say(job, progress, 2, "warn", said)
        failed = replace(progress, fails=progress.fails + 1, failing_since=since)
        pause = min(300.0, 2.0 ** min(failed.fails, 10))
        with self._platform.database.write() as tx:
            outbox.item_failed(
                tx, item.id, self._platform.clock.now(), pause, reason, failed.payload()
            )

    def _say(self, job: Job, progress: Progress, which: int, level: Level, said: Said) -> None:
        """Once a job and integration, whoever says it again."""
        event = JobEvent(
            id=self._platform.ids.new(EVENT),
            job_id=job.id,
            created_at=self._platform.now(),
            level=level,
            message=said.text,
            source="integration",
            sequence=10 * progress.number + which,
            said=(said,),
        )
        with self._platform.database.write() as tx:
            if jobs.get_job(tx, job.id) is not None:
                events.add_events(tx, job.id, [event])

    def _later(self, item: OutboxItem, progress: Progress, pause_s: float) -> None:
        with self._platform.database.write() as tx:
            at = self._platform.clock.now() + pause_s
            outbox.item_later(tx, item.id, progress.payload(), at)

    def _done(self, item: OutboxItem) -> None:
        with self._platform.database.write() as tx:
            outbox.item_done(tx, item.id, self._platform.clock.now())
