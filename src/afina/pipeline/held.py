"""The leases that this worker holds: beaten while it works, and lost without a fuss.

One keeper beats for all lanes from the main thread. A lane asks its lease whether it still stands
and what the user wishes; where the answer was lost, every write of the lane is refused anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from afina.domain.jobs import Job, Wish
from afina.errors import AfinaError, StaleFence
from afina.service.platform import Platform
from afina.store import jobs, leases

log = structlog.get_logger()


class LeaseLost(Exception):
    """Another worker has taken the job over."""


class Cancelled(Exception):
    """The user wishes the job to end."""


@dataclass
class HeldLease:
    """A job that is ours as long as `lost` is not set."""

    job: Job
    lost: threading.Event = field(default_factory=threading.Event)
    cancel: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)

    def lose(self) -> None:
        """The job is another's now, whoever finds it out first: said once in the log."""
        if not self.lost.is_set():
            self.lost.set()
            log.warning("lease.lost", job=self.job.id, fence=self.job.fence)

    def check(self) -> None:
        """Raises LeaseLost or Cancelled; called between the pieces of a long stage."""
        if self.lost.is_set():
            raise LeaseLost(self.job.id)
        if self.cancel.is_set():
            raise Cancelled(self.job.id)


class LeaseKeeper:
    """Holds, beats and gives back leases; safe to call from every lane's thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._held: dict[str, HeldLease] = {}
        self._lock = threading.Lock()
        self._beaten = 0.0
        self._looked = 0.0

    def hold(self, job: Job) -> HeldLease:
        """Begin to beat for a job that has just been claimed."""
        lease = HeldLease(job)
        self._heed(lease, job.wish)
        with self._lock:
            self._held[job.id] = lease
        return lease

    def forget(self, lease: HeldLease) -> None:
        """Stop beating; the job has ended or is lost."""
        with self._lock:
            if self._held.get(lease.job.id) is lease:
                del self._held[lease.job.id]

    def give_back(self, lease: HeldLease) -> None:
        """Let another lane or worker claim the job at once."""
        self.forget(lease)
        try:
            with self._platform.database.write() as tx:
                leases.release(tx, lease.job.id, lease.job.fence)
        except StaleFence:
            lease.lose()

    def tick(self) -> None:
        """Beat when it is time, and look for wishes twice a second."""
        now = self._platform.clock.monotonic()
        settings = self._platform.settings.worker
        if now - self._beaten >= settings.heartbeat_s:
            self._beaten = now
            self._for_all(self._beat)
        elif now - self._looked >= settings.poll_s:
            self._looked = now
            self._for_all(self._look)

    def _for_all(self, act: Callable[[HeldLease], None]) -> None:
        with self._lock:
            held = list(self._held.values())
        for lease in held:
            try:
                act(lease)
            except StaleFence:
                self._lose(lease)
            except AfinaError as error:
                log.warning("lease.beat_failed", job=lease.job.id, error=error.message)

    def _beat(self, lease: HeldLease) -> None:
        with self._platform.database.write() as tx:
            wish = leases.beat(
                tx,
                lease.job.id,
                lease.job.fence,
                self._platform.clock.now(),
                self._platform.settings.worker.lease_s,
            )
        self._heed(lease, wish)

    def _look(self, lease: HeldLease) -> None:
        with self._platform.database.read() as tx:
            job = jobs.get_job(tx, lease.job.id)
        if job is None or job.fence != lease.job.fence:
            self._lose(lease)
        elif not job.status.is_terminal:  # else its lane has just ended it
            self._heed(lease, job.wish)

    def _heed(self, lease: HeldLease, wish: Wish | None) -> None:
        if wish is Wish.CANCEL:
            lease.cancel.set()
        elif wish is Wish.PAUSE:
            lease.pause.set()

    def _lose(self, lease: HeldLease) -> None:
        lease.lose()
        self.forget(lease)
