"""The last part of a job's road: tunes into blobs, the proof of parity, and publishing.

Everything before the last transaction can be done again and changes nothing; a worker that dies
here leaves a run directory with a result, and the next one starts this part anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import structlog

from afina.domain.codec import encode
from afina.domain.jobs import Job, JobError, JobStatus
from afina.domain.manifests import FILES_OF, SHARDS
from afina.domain.runs import (
    RENDERED_AT,
    ParityRow,
    RunCheckpoint,
    RunEvent,
    RunPaths,
    RunResult,
    RunSpec,
)
from afina.domain.sayings import Said, say
from afina.errors import EngineFailed, Internal, Overloaded, Unavailable
from afina.evaluation.parity import ParityReport, compare
from afina.pipeline.gate_stage import BeforePublishing, outcome_before
from afina.pipeline.held import Cancelled, HeldLease
from afina.pipeline.run_files import read_all_events, read_result, read_spec
from afina.pipeline.wire_events import EventWriter, results_csv
from afina.service import publish
from afina.service.budgets import EpochBudget
from afina.service.gate import GateOutcome
from afina.service.platform import Platform
from afina.service.usage import epoch_budget
from afina.serving.client import BlockingEngineClient
from afina.serving.protocol import Score, Scored
from afina.store import events, jobs

T = TypeVar("T")
ENGINE_PAUSE_S: Final = 0.5
SAY_AFTER_S: Final = 30.0
ENGINE_BREAKS: Final = 10
"""Answers that the engine may break off in one finish before the job fails for it."""
log = structlog.get_logger()


@dataclass(frozen=True)
class _Finish:
    platform: Platform
    lease: HeldLease
    paths: RunPaths
    spec: RunSpec
    result: RunResult

    @property
    def job(self) -> Job:
        return self.lease.job


def finish_job(platform: Platform, lease: HeldLease, paths: RunPaths) -> None:
    """Bring a run with a result to its end in the store. Raises StaleFence, Internal."""
    result = read_result(paths)
    if result is None:
        raise Internal(f"{paths.result} is gone.")
    given = _Finish(platform, lease, paths, read_spec(paths), result)
    try:
        if result.outcome == "cancelled":
            raise Cancelled(lease.job.id)
        ends = {"paused": _rest, "spent": _stop_spent}
        _patiently(given, lambda: ends.get(result.outcome, _publish)(given))
    except Cancelled:
        _patiently(given, lambda: publish.end_cancelled(platform, lease.job, result.trained_tokens))


def _publish(given: _Finish) -> None:
    if not given.result.checkpoints:
        raise Internal("The run succeeded without a checkpoint.")
    publish.publish_models(given.platform, given.job, _gated(given))
    log.info("job.succeeded", job=given.job.id, steps=given.result.steps)


def _gated(given: _Finish) -> publish.Publication:
    """All that the run brought, proven, with what the gate says where it was asked to hold."""
    publication = _proven(given)
    final = publication.tunes[-1].manifest
    outcome = outcome_before(
        BeforePublishing(
            given.platform, given.job, given.spec, given.result, final, given.lease.check
        )
    )
    given.lease.check()
    told = read_all_events(given.paths)
    return replace(
        publication,
        gate=outcome,
        ending=how_it_ended(given.spec, given.result, told),
        results_csv=results_csv(told),
        row_losses_csv=_read(given.paths.row_losses),
    )


def _ungated(given: _Finish) -> publish.Publication:
    """All that the run has brought so far. Its gate is asked at the job's end."""
    wish = given.job.extension.gate
    return replace(_proven(given), gate=GateOutcome(wish.policy, wish.suite))


def how_it_ended(spec: RunSpec, result: RunResult, told: Sequence[RunEvent]) -> tuple[Said, ...]:
    """What the validation loss decided: where the run stopped, and which epoch is the model."""
    name = "full_valid_loss"
    losses = [e.data[name] for e in told if e.kind == "step" and e.data.get(name) is not None]
    said = []
    if result.stopped_early and spec.early_stopping is not None and losses:
        lowest = min(losses)
        stopped = say(
            "stopped_early", epoch=len(losses), all=spec.epochs, n=spec.early_stopping.patience,
            lowest_nats=lowest, best=losses.index(lowest) + 1,
        )  # fmt: skip
        said.append(stopped)
    final = result.checkpoints[-1]
    if spec.best_checkpoint and name in final.metrics:
        said.append(say("best_taken", step=final.step, lowest_nats=final.metrics[name]))
    return tuple(said)


def _stop_spent(given: _Finish) -> None:
    """The budget had no further epoch: the job fails for it, and its checkpoints stay."""
    brought = _gated(given) if given.result.checkpoints else None
    spec, done = given.spec, given.result.steps * given.spec.epochs // _all_steps(given)
    budget = epoch_budget(given.platform, given.job, spec.epochs, spec.training.tokens)
    tokens = given.result.trained_tokens
    error = spent_error(done, spec, budget)
    publish.stop_job(given.platform, given.job, brought, tokens, error)
    log.info("job.spent", job=given.job.id, epochs=done)


def _all_steps(given: _Finish) -> int:
    """Of all the epochs that were planned."""
    return max(1, given.spec.optimizer.total_steps)


def spent_error(done: int, spec: RunSpec, budget: EpochBudget) -> JobError:
    """Why a job was stopped after `done` of its epochs."""
    when = f"after {done} of {spec.epochs} epochs" if done else "before it was trained"
    reason = budget.reason or "At that moment the budget had no room for another one."
    text = f"The job was stopped {when}: {reason[0].lower()}{reason[1:]}"
    kept = " Its checkpoints can be used, and tuned on." if done else ""
    said = say("spent", n=done, all=spec.epochs)
    return JobError("exceeded_quota", f"{text}{kept} An admin can raise the limit.", said=(said,))


def _rest(given: _Finish) -> None:
    """The run is paused: what it learned so far has a name until it goes on."""
    snapshot = _ungated(given) if given.result.checkpoints else None
    tokens = given.result.trained_tokens
    job = publish.pause_job(given.platform, given.job, snapshot, tokens)
    if job.status is not JobStatus.PAUSED:  # in the meantime its user wished to cancel it
        raise Cancelled(given.job.id)
    log.info("job.paused", job=given.job.id, steps=given.result.steps)


def _proven(given: _Finish) -> publish.Publication:
    """The run's tunes in the store, the last of them proven to be served as it was trained."""
    tunes = tuple(
        publish.PublishedTune(kept.step, _store(given, kept), kept.metrics)
        for kept in given.result.checkpoints
    )
    given.lease.check()
    report = _prove(given, tunes[-1].manifest)
    report.check()
    given.lease.check()
    return publish.Publication(
        tunes=tunes,
        trained_tokens=given.result.trained_tokens,
        template_sha256=given.spec.settings["template_sha256"],
        rendered_at=_moment(given.spec.settings.get(RENDERED_AT)),
        parity=encode(report),
    )


def _moment(told: str | None) -> int | None:
    return None if told is None else int(told)


def _read(path: Path) -> bytes | None:
    """A file of the run; None where an older trainer wrote none."""
    return path.read_bytes() if path.exists() else None


def _store(given: _Finish, kept: RunCheckpoint) -> str:
    facts = publish.TuneFacts(
        base_sha256=given.spec.base.sha256,
        template_sha256=given.spec.settings["template_sha256"],
        data_sha256=given.spec.training.sha256,
        settings=dict(given.spec.settings) | _shards(given),
        kind=given.spec.tune.kind,
    )
    folder = given.paths.root / kept.directory
    names = FILES_OF[given.spec.tune.kind]
    return publish.store_tune(
        given.platform, given.job, facts, {name: folder / name for name in names}
    )


def _shards(given: _Finish) -> dict[str, str]:
    """Where the engine finds the training answers: drafts are made from them."""
    folder = Path(given.spec.training.path).resolve()
    root = given.platform.settings.shards.resolve()
    if given.spec.method != "supervised" or not folder.is_relative_to(root):
        return {}
    return {SHARDS: folder.relative_to(root).as_posix()}


def _prove(given: _Finish, manifest: str) -> ParityReport:
    """Ask the engine for what the trainer saw; the engine may be away for a while."""
    _stage(given, "parity")
    engine = _PatientEngine(given, manifest)
    weights = given.result.precision if given.spec.tune.base_bits == 16 else "int4"
    return compare(given.result.parity, engine.score, weights)


class _PatientEngine:
    """Scores forced ids, however often the engine is away or overloaded meanwhile. Several threads
    ask at once."""

    def __init__(self, given: _Finish, manifest: str) -> None:
        self._given = given
        self._manifest = manifest
        self._client = BlockingEngineClient(given.platform.settings.engine_socket)
        self._breaks = 0
        self._waited_s = 0.0
        self._said = False
        self._lock = threading.Lock()

    def score(self, row: ParityRow) -> Scored:
        """What the engine makes of a row. Raises EngineFailed, LeaseLost, Cancelled."""
        request = Score(
            base=self._given.spec.base.id,
            prompt=list(row.prompt_ids),
            ids=list(row.ids),
            adapter=self._manifest,
        )
        while True:
            self._given.lease.check()
            try:
                return self._client.score(request)
            except EngineFailed:
                with self._lock:
                    self._breaks += 1
                    if self._breaks >= ENGINE_BREAKS:
                        raise
            except (Unavailable, Overloaded):
                pass
            self._wait()

    def _wait(self) -> None:
        time.sleep(ENGINE_PAUSE_S)
        with self._lock:
            self._waited_s += ENGINE_PAUSE_S / len(self._given.result.parity)
            if self._waited_s < SAY_AFTER_S or self._said:
                return
            self._said = True
        _warn(self._given, say("waiting_engine"))


def _stage(given: _Finish, name: str) -> None:
    with given.platform.database.write() as tx:
        jobs.update_job(tx, given.job.id, given.job.fence, stage=name)


def _warn(given: _Finish, text: Said) -> None:
    said = EventWriter(given.job, given.platform.ids, given.platform.clock).message(text, "warn")
    with given.platform.database.write() as tx:
        events.append_events(tx, given.job.id, given.job.fence, [said])


def _patiently(given: _Finish, act: Callable[[], T]) -> T:
    """Again after a pause where the store or the disk was busy: the work is done, keep it."""
    while True:
        try:
            return act()
        except Unavailable as error:
            log.warning("finish.waits", job=given.job.id, reason=error.message)
            if given.lease.lost.wait(error.retry_after_s or 1.0):
                raise
