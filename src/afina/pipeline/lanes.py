"""The lanes that run beside training: preparing jobs, and chores.

A lane is a thread that works as long as there is work and then waits a moment. A fault in one
piece of work is logged, ends that piece alone, and never the lane.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from afina.domain.jobs import Job, JobError, JobStatus
from afina.errors import AfinaError, InvalidRequest, StaleFence, Unavailable
from afina.pipeline.faults import fault_of
from afina.pipeline.held import Cancelled, HeldLease, LeaseKeeper, LeaseLost
from afina.pipeline.identity import is_known_dead
from afina.pipeline.journal import JournalDrain
from afina.pipeline.prepare import JobRefused, Preparation, refusal_of
from afina.service import disk, publish, sweep, usage
from afina.service.platform import Platform
from afina.serving.client import BlockingEngineClient
from afina.store import jobs, leases, outbox

ERROR_PAUSE_S: Final = 1.0
SWEEP_EVERY_S: Final = 600.0
DISK_EVERY_S: Final = 60.0
TRAINERS_EVERY_S: Final = 10.0
TRAINERS_TTL_S: Final = 30.0
OUTBOX_LEASE_S: Final = 30.0
INTERNAL: Final = JobError("server_error", "The job failed due to an internal error")
log = structlog.get_logger()


def claim(platform: Platform, owner: str, statuses: Sequence[JobStatus]) -> Job | None:
    """The next job in one of `statuses`: free, expired, or of a worker here that is dead."""
    with platform.database.read() as tx:
        if not jobs.is_any_in(tx, statuses):
            return None
        standing = leases.lease_owners(tx)
    dead = [other for other in standing if is_known_dead(other)]
    with platform.database.write() as tx:
        return leases.claim_job(
            tx,
            statuses=statuses,
            owner=owner,
            now=platform.clock.now(),
            lease_s=platform.settings.worker.lease_s,
            dead_owners=dead,
        )


class Lane:
    """A thread that repeats one piece of work until it is told to stop."""

    def __init__(self, name: str, work: Callable[[], bool], pause_s: float) -> None:
        self._name = name
        self._work = work
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take up nothing new."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Whether the lane came to its end in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self._work()
                pause = 0.0 if busy else self._pause_s
            except AfinaError as error:
                log.warning("lane.fault", lane=self._name, error=error.one_line())
                pause = ERROR_PAUSE_S
            except Exception as error:  # noqa: BLE001 - logged, and the work goes on
                log.error("lane.fault", lane=self._name, **fault_of(error))
                pause = ERROR_PAUSE_S
            self._stop.wait(pause)


@dataclass
class PrepareLane:
    """Takes jobs that wait for validation, one after another."""

    platform: Platform
    keeper: LeaseKeeper
    owner: str
    lease: HeldLease | None = None
    """Of the job that is being prepared; other threads look at it."""

    def work(self) -> bool:
        """Prepare one job; False where none waits."""
        job = claim(self.platform, self.owner, [JobStatus.VALIDATING])
        if job is None:
            return False
        lease = self.lease = self.keeper.hold(job)
        try:
            self._prepare(lease)
        except (LeaseLost, StaleFence):
            log.warning("job.taken_over", job=job.id)
        finally:
            self.lease = None
            self.keeper.forget(lease)
        return True

    def _prepare(self, lease: HeldLease) -> None:
        try:
            Preparation(self.platform, lease).run()
            self.keeper.give_back(lease)
        except Cancelled:
            publish.end_cancelled(self.platform, lease.job)
        except JobRefused as refused:
            log.info("job.refused", job=lease.job.id, code=refused.error.code)
            publish.fail_job(self.platform, lease.job, refused.error)
        except InvalidRequest as error:
            publish.fail_job(self.platform, lease.job, refusal_of(error))
        except (LeaseLost, StaleFence):
            raise
        except Unavailable:
            self.keeper.give_back(lease)
            raise
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("job.prepare_failed", job=lease.job.id, **fault_of(error))
            publish.fail_job(self.platform, lease.job, INTERNAL)


class ChoresLane:
    """Ledger, outbox, what the engine should know, and sweeping."""

    def __init__(self, platform: Platform, trainers: Callable[[], int]) -> None:
        self._platform = platform
        self._trainers = trainers
        self._engine = BlockingEngineClient(platform.settings.engine_socket, timeout_s=10.0)
        self._drain = JournalDrain(
            platform.settings.journal, lambda records: usage.record_inference(platform, records)
        )
        self._told: tuple[int, float] = (0, float("-inf"))
        self._swept = self._looked_at_disk = float("-inf")

    def work(self) -> bool:
        """Each chore once; True where there was something in the journal."""
        drained = self._drain.drain()
        self._tell_engine()
        self._empty_outbox()
        self._sweep()
        self._keep_within()
        return drained > 0

    def _tell_engine(self) -> None:
        """How many trainers share the machine; nobody minds an engine that is away."""
        now, count = self._platform.clock.monotonic(), self._trainers()
        told, at = self._told
        if count == told and (count == 0 or now - at < TRAINERS_EVERY_S):
            return
        try:
            self._engine.set_trainers(count, TRAINERS_TTL_S)
            self._told = (count, now)
        except AfinaError as error:
            log.debug("engine.not_told", error=error.message)

    def _empty_outbox(self) -> None:
        now = self._platform.clock.now()
        with self._platform.database.write() as tx:
            items = outbox.claim_items(tx, now, OUTBOX_LEASE_S)
        for item in items:
            self._carry_out(item)

    def _carry_out(self, item: outbox.OutboxItem) -> None:
        now = self._platform.clock.now()
        try:
            if item.kind == "forget_adapter":
                self._engine.forget(item.payload["adapter"])
            else:
                log.error("outbox.unknown_kind", kind=item.kind)
        except AfinaError as error:
            pause = min(300.0, 2.0**item.attempts)
            with self._platform.database.write() as tx:
                outbox.item_failed(tx, item.id, now, pause, error.message)
            return
        with self._platform.database.write() as tx:
            outbox.item_done(tx, item.id, now)

    def _keep_within(self) -> None:
        """Makes room on the disk where its budget is spent."""
        now = self._platform.clock.monotonic()
        if now - self._looked_at_disk < DISK_EVERY_S:
            return
        self._looked_at_disk = now
        gone = disk.keep_within(self._platform)
        if gone:
            freed = sum(one.bytes for one in gone)
            log.info("disk.cleaned", removed=len(gone), bytes=freed)

    def _sweep(self) -> None:
        now = self._platform.clock.monotonic()
        if now - self._swept < SWEEP_EVERY_S:
            return
        self._swept = now
        report = sweep.sweep(self._platform)
        if report != sweep.SweepReport():
            log.info("swept", files=report.expired_files, blobs=report.blobs, bytes=report.bytes)
