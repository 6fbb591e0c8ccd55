"""One job between `queued` and its end: trainers started, followed, judged and started again.

Driven from the worker's main thread by `step`, which never waits for long: trainers must be forked
there. The finish (parity and publishing) waits for the engine and therefore has its own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from afina.domain.jobs import Job, JobError, JobStatus, Wish
from afina.domain.runs import RunEvent, RunPaths, RunSpec
from afina.domain.sayings import say
from afina.errors import AfinaError, Internal, StaleFence
from afina.pipeline import exits, finish
from afina.pipeline.faults import fault_of
from afina.pipeline.finish import finish_job
from afina.pipeline.follow import Follower, first_guess
from afina.pipeline.foresight import rate_of
from afina.pipeline.held import HeldLease, LeaseLost
from afina.pipeline.launcher import Command, RunBusy, Trainer, end_other_trainer, start_trainer
from afina.pipeline.run_files import read_result, read_spec, write_wish
from afina.pipeline.warm import WarmTrainer
from afina.pipeline.wire_events import EventWriter
from afina.service import bases, publish
from afina.service.budgets import EpochBudget
from afina.service.platform import Platform
from afina.service.usage import begin_epochs, epoch_budget
from afina.store import events, jobs

CANCEL_PATIENCE_S: Final = 60.0
"""How long a trainer may take to come to its next step after a wish to cancel."""
LEAVE_PATIENCE_S: Final = 25.0
BUSY_PAUSE_S: Final = 0.2
BUDGET_EVERY_S: Final = 2.0
"""How often a running job's budget is looked at: others spend of it too."""
INTERNAL: Final = JobError("server_error", "The job failed due to an internal error")
log = structlog.get_logger()


class TrainingRun:
    """The train lane's job. `step` until `is_over`."""

    def __init__(
        self,
        platform: Platform,
        lease: HeldLease,
        command: Command | None = None,
        warm: WarmTrainer | None = None,
    ) -> None:
        self._platform = platform
        self._warm = warm
        self._lease = lease
        self._command = command or Command()
        self._paths = RunPaths(platform.settings.runs / lease.job.id)
        self._writer = EventWriter(lease.job, platform.ids, platform.clock)
        self._spec: RunSpec | None = None
        self._trainer: Trainer | None = None
        self._follower: Follower | None = None
        self._finishing: threading.Thread | None = None
        self._due = 0.0
        self._wished_at: float | None = None
        self._pause_passed_on = False
        self._told: tuple[Wish | None, int | None] = (None, None)
        self._budget_at = float("-inf")
        self._begun = 0
        self._leaving_since: float | None = None
        self.is_over = False
        """Set when the lane has nothing more to do for the job."""

    @property
    def job(self) -> Job:
        return self._lease.job

    @property
    def lease(self) -> HeldLease:
        return self._lease

    @property
    def has_trainer(self) -> bool:
        return self._trainer is not None

    def step(self) -> None:
        """Whatever is next, without waiting."""
        try:
            if self._lease.lost.is_set():
                self._drop()
            elif self._finishing is not None:
                self.is_over = not self._finishing.is_alive()
            elif self._trainer is not None:
                self._watch(self._trainer)
            elif self._lease.cancel.is_set():
                self._end_cancelled()
            elif self._now() >= self._due and self._leaving_since is None:
                self._go_on()
        except StaleFence:
            self._lease.lose()
            self._drop()
        except Internal as error:  # a run directory that is not what we wrote
            self._end_trainer()
            self._fail(JobError("server_error", error.one_line()))

    def leave(self) -> None:
        """The worker stops: the trainer writes a checkpoint and leaves, the job waits."""
        if self._leaving_since is None:
            self._leaving_since = self._now()
            if self._trainer is not None:
                self._trainer.ask_to_leave()
        elif self._trainer is not None and (self._now() - self._leaving_since > LEAVE_PATIENCE_S):
            self._trainer.kill()
        if self._trainer is None and self._finishing is None:
            self.is_over = True

    def _go_on(self) -> None:
        """From what the run directory says: the first trainer, the next one, or the finish."""
        if self._spec is None:
            self._spec = read_spec(self._paths)
        result = read_result(self._paths)
        if result is not None and result.outcome == "paused" and not self._lease.pause.is_set():
            self._paths.result.unlink()
            result = None
        if result is None and self._lease.pause.is_set() and self.job.status is JobStatus.QUEUED:
            self._rest()
            return
        if result is not None:
            self._mark_running()
            self._ingest_rest()
            self._begin_finish()
            return
        error = exits.give_up(
            exits.read_exits(self._paths), self._platform.settings.worker.max_attempts
        )
        if error is not None:
            self._fail(error)
            return
        budget = self._budget(self._spec)
        if budget.epochs == 0 and not self._paths.events.exists():
            self._fail(finish.spent_error(0, self._spec, budget))
            return
        self._launch(self._spec, budget)

    def _budget(self, spec: RunSpec) -> EpochBudget:
        self._budget_at = self._now()
        return epoch_budget(self._platform, self.job, spec.epochs, spec.training.tokens)

    def _note_begun(self, spec: RunSpec) -> None:
        """What the trainer has begun counts as spent, whatever becomes of the job."""
        tokens = spec.training.tokens
        done = self._follower.tokens if self._follower is not None else 0
        begun = min(spec.epochs, done // tokens + 1 if tokens else 1, self._told[1] or spec.epochs)
        if begun > self._begun:
            begin_epochs(self._platform, self.job, spec.epochs, tokens, begun)
            self._begun = begun

    def _tell(self, wish: Wish | None, epochs: int | None) -> None:
        self._told = (wish, epochs)
        write_wish(self._paths, wish, epochs)

    def _launch(self, spec: RunSpec, budget: EpochBudget) -> None:
        ready = self._warm.take(self.job.id, spec.threads) if self._warm is not None else None
        try:
            if ready is None:
                end_other_trainer(self._paths)
            self._mark_running(exits.next_attempt(self._paths) if ready is None else ready.attempt)
            self._tell(None, budget.epochs)
            self._pause_passed_on = False
            self._trainer = ready if ready is not None else self._started(spec)
        except RunBusy:
            self._due = self._now() + BUSY_PAUSE_S
            return
        finally:
            if ready is not None and self._trainer is not ready:
                ready.kill()
        self._note_begun(spec)
        self._trainer.go()
        attempt = self._trainer.attempt
        self._follower = Follower(self._platform, self.job, self._paths, attempt)
        log.info("trainer.started", job=self.job.id, attempt=attempt, pid=self._trainer.pid)

    def _started(self, spec: RunSpec) -> Trainer:
        attempt = exits.next_attempt(self._paths)
        return start_trainer(self._paths, attempt, spec.threads, self._command)

    def _mark_running(self, attempt: int | None = None) -> None:
        """Fenced, and just before every start: a worker that lost the job starts nothing.
        `attempt` is that of the trainer that is about to start."""
        now = int(self._platform.clock.now())
        assert self._spec is not None
        base = bases.get_base(self._platform, self.job.model)
        rate = rate_of(self._platform.settings, base, self._spec)
        guess = first_guess(rate, self._spec, now)
        with self._platform.database.write() as tx:
            if self.job.status is JobStatus.QUEUED:
                job = jobs.move_job(
                    tx, self.job.id, self.job.fence, JobStatus.RUNNING,
                    stage="training", started_at=now, estimated_finish=guess,
                )  # fmt: skip
                said = self._writer.message(say("started"))
                events.append_events(tx, self.job.id, self.job.fence, [said])
            else:
                job = jobs.update_job(tx, self.job.id, self.job.fence, stage="training")
            if attempt is not None:
                job = jobs.update_job(tx, self.job.id, self.job.fence, attempt=attempt)
        self._lease.job = replace(job, fence=self.job.fence)

    def _watch(self, trainer: Trainer) -> None:
        assert self._follower is not None
        code = trainer.poll()
        self._follower.look()
        if code is not None:
            self._follower.finish()
            self._trainer = None
            self._judge(trainer.attempt, code, self._follower.last)
        elif self._lease.cancel.is_set():
            self._pass_on_cancel(trainer, self._follower)
        elif self._lease.pause.is_set() and not self._pause_passed_on:
            self._pause_passed_on = True
            self._tell(Wish.PAUSE, self._told[1])
        elif self._spec is not None and self._now() - self._budget_at >= BUDGET_EVERY_S:
            self._note_begun(self._spec)
            epochs = self._budget(self._spec).epochs
            if epochs != self._told[1]:
                self._tell(self._told[0], epochs)

    def _rest(self) -> None:
        """Paused before a trainer was started for it."""
        publish.pause_job(self._platform, self.job, None, self.job.trained_tokens or 0)
        self.is_over = True

    def _judge(self, attempt: int, code: int, last: RunEvent | None) -> None:
        verdict = exits.judge_exit(code, read_result(self._paths) is not None, last)
        step = self._follower.step if self._follower is not None else 0
        finished = verdict.kind == "finished"
        exits.write_exit(self._paths, attempt, exits.Exit(code, step, finished))
        log.info("trainer.ended", job=self.job.id, attempt=attempt, code=code, step=step)
        if finished:
            self._begin_finish()
        elif verdict.kind == "failed" and verdict.error is not None:
            self._fail(verdict.error)
        elif verdict.kind == "crashed":
            self._due = self._now() + exits.pause_before_next(exits.read_exits(self._paths))

    def _pass_on_cancel(self, trainer: Trainer, follower: Follower) -> None:
        if self._wished_at is None:
            self._wished_at = self._now()
            self._tell(Wish.CANCEL, self._told[1])
        waited = self._now() - self._wished_at
        if follower.step == 0 or waited > CANCEL_PATIENCE_S:
            trainer.kill()

    def _end_cancelled(self) -> None:
        self._ingest_rest()
        result = read_result(self._paths)
        if result is not None:
            tokens = result.trained_tokens
        else:
            tokens = self._follower.tokens if self._follower is not None else 0
        publish.end_cancelled(self._platform, self.job, tokens)
        self.is_over = True

    def _ingest_rest(self) -> None:
        if self._follower is None:
            attempt = exits.next_attempt(self._paths) - 1
            self._follower = Follower(self._platform, self.job, self._paths, attempt)
            self._follower.finish()

    def _begin_finish(self) -> None:
        self._finishing = threading.Thread(target=self._finish, name="finish", daemon=True)
        self._finishing.start()

    def _finish(self) -> None:
        assert self._spec is not None
        self._guard(lambda: finish_job(self._platform, self._lease, self._paths))

    def _guard(self, act: Callable[[], None]) -> None:
        """Whatever happens at the finish, the job is not left hanging."""
        try:
            act()
        except (StaleFence, LeaseLost):
            self._lease.lose()
        except AfinaError as error:
            log.error("job.finish_failed", job=self.job.id, error=error.message)
            self._fail(JobError(error.code or "server_error", error.one_line()))
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("job.finish_failed", job=self.job.id, **fault_of(error))
            self._fail(INTERNAL)

    def _fail(self, error: JobError) -> None:
        log.info("job.failed", job=self.job.id, code=error.code)
        try:
            publish.fail_job(self._platform, self.job, error)
        except StaleFence:
            self._lease.lose()
        self.is_over = True

    def _now(self) -> float:
        return self._platform.clock.monotonic()

    def _drop(self) -> None:
        """The job is another worker's: end what we started and write nothing."""
        self._end_trainer()
        self.is_over = True

    def _end_trainer(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()
            self._trainer = None
