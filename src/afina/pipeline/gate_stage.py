"""When the gate runs: before publishing for policy `hold`, in a lane of its own for `report`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from afina.domain.jobs import Job
from afina.domain.runs import RunPaths, RunResult, RunSpec
from afina.errors import AfinaError, Internal
from afina.pipeline.faults import fault_of
from afina.pipeline.gate import Candidate, GateRun, shown
from afina.pipeline.run_files import read_result, read_spec
from afina.service import gate
from afina.service.gate import GateOutcome
from afina.service.platform import Platform
from afina.store import jobs, models

log = structlog.get_logger()


@dataclass(frozen=True)
class BeforePublishing:
    """What a run brought, when its tunes are stored and proven."""

    platform: Platform
    job: Job
    spec: RunSpec
    result: RunResult
    manifest: str
    check: Callable[[], None]


def outcome_before(given: BeforePublishing) -> GateOutcome:
    """What is known of the gate when a model is published. A gate that could not be run holds the
    model where it was asked to. Raises what `check` raises."""
    wish = given.job.extension.gate
    asked = GateOutcome(wish.policy, wish.suite)
    if wish.policy != "hold":
        return asked
    with given.platform.database.write() as tx:
        jobs.update_job(tx, given.job.id, given.job.fence, stage="gate")
    candidate = Candidate(given.spec, given.result, given.manifest, wish.suite)
    try:
        report = GateRun(given.platform, candidate, given.check).run()
    except AfinaError as error:
        log.warning("gate.not_run", job=given.job.id, error=error.message)
        return GateOutcome(wish.policy, wish.suite, note=error.one_line())
    log.info("gate.ran", job=given.job.id, verdict=report.verdict, seconds=report.seconds)
    return GateOutcome(wish.policy, wish.suite, report=shown(report))


@dataclass(frozen=True)
class GateLane:
    """Makes the reports that follow their models, one after another."""

    platform: Platform

    def work(self) -> bool:
        """Make one report; False where none is waited for."""
        row = gate.next_gate(self.platform)
        if row is None:
            return False
        try:
            report = shown(self._run(row.model, row.job_id, row.suite).run())
        except AfinaError as error:
            if row.attempts + 1 < gate.MOST_ATTEMPTS and error.retry:
                log.warning("gate.waits", model=row.model, error=error.message)
                return False
            gate.finish(self.platform, row, None, error.one_line())
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("gate.failed", model=row.model, **fault_of(error))
            gate.finish(self.platform, row, None, "an internal error")
        else:
            gate.finish(self.platform, row, report, "")
            log.info("gate.ran", model=row.model, verdict=report["verdict"])
        return True

    def _run(self, name: str, job_id: str, suite: str) -> GateRun:
        paths = RunPaths(self.platform.settings.runs / job_id)
        result = read_result(paths)
        with self.platform.database.read() as tx:
            model = models.get_model(tx, name)
        if result is None or model is None:
            raise Internal("its run is gone")
        candidate = Candidate(read_spec(paths), result, model.manifest, suite)
        return GateRun(self.platform, candidate, lambda: None)
