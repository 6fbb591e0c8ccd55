"""The worker: takes jobs and walks them along their road, in three lanes.

Preparing and chores run in threads. Training runs in the main thread, because a trainer must be
forked there (its death signal follows the thread that forked it); so do the beats of all leases.
It never loads torch. A worker that is killed is replaced at once: the next one sees that the
owner of its leases is dead.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

import structlog

from afina.domain.flag import SignalFlag
from afina.domain.jobs import JobStatus
from afina.errors import AfinaError
from afina.pipeline.batches import EVERY_S as BATCHES_EVERY_S
from afina.pipeline.batches import BatchLane
from afina.pipeline.deliveries import EVERY_S as DELIVERIES_EVERY_S
from afina.pipeline.deliveries import DeliveryLane
from afina.pipeline.faults import fault_of
from afina.pipeline.gate_stage import GateLane
from afina.pipeline.held import LeaseKeeper
from afina.pipeline.identity import WorkerIdentity
from afina.pipeline.integrations import EVERY_S as INTEGRATIONS_EVERY_S
from afina.pipeline.integrations import IntegrationLane
from afina.pipeline.lanes import ChoresLane, Lane, PrepareLane, claim
from afina.pipeline.launcher import Command
from afina.pipeline.training_run import TrainingRun
from afina.pipeline.warm import WarmTrainer
from afina.service.platform import Platform
from afina.settings import Settings

TICK_S: Final = 0.1
CHORES_EVERY_S: Final = 0.5
DRAIN_S: Final = 30.0
FAULT_PAUSE_S: Final = 1.0
log = structlog.get_logger()


class Worker:
    """One worker process."""

    def __init__(self, platform: Platform, command: Command | None = None) -> None:
        self._platform = platform
        self._command = command
        self.owner = str(WorkerIdentity.of_this_process(platform.ids, os.getpid()))
        self._keeper = LeaseKeeper(platform)
        self._run: TrainingRun | None = None
        self._stop = SignalFlag()
        self._warm = WarmTrainer(platform, command)
        self._prepare = prepare = PrepareLane(platform, self._keeper, self.owner)
        chores = ChoresLane(platform, lambda: int(self._has_trainer()))
        batches = BatchLane(platform, self.owner, self._stop.is_up)
        self._lanes = [
            Lane("prepare", prepare.work, platform.settings.worker.poll_s),
            Lane("chores", chores.work, CHORES_EVERY_S),
            Lane("batches", batches.work, BATCHES_EVERY_S),
            Lane("deliveries", DeliveryLane(platform).work, DELIVERIES_EVERY_S),
            Lane("integrations", IntegrationLane(platform).work, INTEGRATIONS_EVERY_S),
            Lane("gate", GateLane(platform).work, CHORES_EVERY_S),
        ]
        self._looked = float("-inf")

    @classmethod
    def open(cls, settings: Settings) -> Worker:
        """A worker on these settings' store."""
        return cls(Platform.open(settings))

    def run(self) -> int:
        """Work until SIGTERM or SIGINT (a second one ends it at once); the exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        log.info("worker.started", owner=self.owner)
        for lane in self._lanes:
            lane.start()
        try:
            while not self._stop.wait(TICK_S):
                self.tick()
            self._drain()
        finally:
            self._platform.close()
        log.info("worker.stopped", owner=self.owner)
        return 0

    def tick(self) -> None:
        """One round of the main thread; a fault is logged and the round comes again."""
        try:
            self._keeper.tick()
            self._train()
        except AfinaError as error:
            log.warning("worker.fault", error=error.one_line())
            self._stop.wait(FAULT_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("worker.fault", **fault_of(error))
            self._stop.wait(FAULT_PAUSE_S)

    def _train(self) -> None:
        if self._run is None:
            self._take_up()
            self._warm.follow(self._prepare.lease)
        if self._run is not None:
            self._run.step()
            self._let_go_if_over()

    def _take_up(self) -> None:
        now = self._platform.clock.monotonic()
        if now - self._looked < self._platform.settings.worker.poll_s:
            return
        self._looked = now
        job = claim(self._platform, self.owner, [JobStatus.QUEUED, JobStatus.RUNNING])
        if job is not None:
            log.info("job.claimed", job=job.id, fence=job.fence)
            lease = self._keeper.hold(job)
            self._run = TrainingRun(self._platform, lease, self._command, self._warm)

    def _let_go_if_over(self) -> None:
        if self._run is not None and self._run.is_over:
            self._keeper.forget(self._run.lease)
            self._run = None

    def _drain(self) -> None:
        """Let the trainer write its checkpoint, give every lease back, end."""
        for lane in self._lanes:
            lane.stop()
        self._warm.drop()
        deadline = self._platform.clock.monotonic() + DRAIN_S
        while self._run is not None and self._platform.clock.monotonic() < deadline:
            self._keeper.tick()
            self._run.leave()
            if self._run.is_over:
                self._keeper.give_back(self._run.lease)
                self._run = None
                break
            self._run.step()
            self._let_go_if_over()
            self._stop.clear()
            self._stop.wait(TICK_S)
        for lane in self._lanes:
            lane.join(2.0)

    def _has_trainer(self) -> bool:
        run = self._run
        return run is not None and run.has_trainer

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._stop.is_up():
            os._exit(128 + number)
        self._stop.lift()
