"""A trainer that is started while its job is still being checked and tokenised.

Loading torch, transformers and the base takes longer than preparing a small file, so both go on at
once: the trainer loads, and then waits for one byte before it looks at its run. It belongs to its
job from the first moment (its lock, its attempt, its log), writes nothing before that byte, and is
ended when the job does not come to training: a machine without jobs keeps no trainer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from afina.domain.runs import RunPaths
from afina.pipeline import exits
from afina.pipeline.held import HeldLease
from afina.pipeline.launcher import Command, RunBusy, Trainer, Waiting, start_trainer
from afina.pipeline.resolve import free_cores
from afina.service import bases
from afina.service.platform import Platform
from afina.service.ways import precision_for
from afina.store import files

LARGEST_FILE: Final = 32 << 20
"""Larger files take so long to prepare that nobody notices the start of a trainer."""
PATIENCE_S: Final = 5.0
"""How long it waits between the end of the preparation and the claim of the job for training."""
log = structlog.get_logger()


@dataclass
class _Ready:
    job: str
    threads: int
    trainer: Trainer
    left_at: float | None = None
    """When the preparation was first seen to be over."""


class WarmTrainer:
    """At most one trainer that waits. Called from the worker's main thread alone."""

    def __init__(self, platform: Platform, command: Command | None = None) -> None:
        self._platform = platform
        self._command = command
        self._ready: _Ready | None = None
        self._seen = ""

    def follow(self, lease: HeldLease | None) -> None:
        """Start one for the job that is being prepared, once; end one whose job went away."""
        ready = self._ready
        if ready is not None and (ready.trainer.poll() is not None or self._is_over(ready, lease)):
            self.drop()
        if lease is None or self._ready is not None or lease.job.id == self._seen:
            return
        self._seen = lease.job.id
        if not (lease.cancel.is_set() or lease.lost.is_set()):
            self._start(lease)

    def take(self, job: str, threads: int) -> Trainer | None:
        """The trainer that waits for this job, if there is one; any other is ended."""
        ready, self._ready = self._ready, None
        if ready is None:
            return None
        fits = (ready.job, ready.threads) == (job, threads) and ready.trainer.poll() is None
        if fits:
            return ready.trainer
        ready.trainer.kill()
        return None

    def drop(self) -> None:
        """End the one that waits."""
        if self._ready is not None:
            self._ready.trainer.kill()
            self._ready = None

    def _is_over(self, ready: _Ready, lease: HeldLease | None) -> bool:
        """Whether the job that a trainer waits for does not come to training."""
        if lease is not None and lease.job.id == ready.job:
            return lease.cancel.is_set() or lease.lost.is_set()
        now = self._platform.clock.monotonic()
        if ready.left_at is None:
            ready.left_at = now
        return now - ready.left_at > PATIENCE_S

    def _start(self, lease: HeldLease) -> None:
        job, settings = lease.job, self._platform.settings
        with self._platform.database.read() as tx:
            file = files.get_file(tx, job.training_file, job.project_id)
        base = bases.get_base(self._platform, job.model)
        if file is None or file.bytes > LARGEST_FILE or base is None or not base.admitted:
            return
        training = settings.training.model_copy(update={"precision": settings.precision})
        threads = training.threads or free_cores()
        waiting = Waiting(Path(settings.models / base.id), precision_for(training, base))
        paths = RunPaths(settings.runs / job.id)
        try:
            trainer = start_trainer(
                paths, exits.next_attempt(paths), threads, self._command, waiting
            )
        except (RunBusy, OSError) as error:
            log.debug("trainer.not_warmed", job=job.id, reason=str(error))
            return
        self._ready = _Ready(job.id, threads, trainer)
        log.info("trainer.warming", job=job.id, pid=trainer.pid)
