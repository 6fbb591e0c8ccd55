"""When the gate runs: before publishing for policy `hold`, in a lane of its own for `report`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from afina.domain.jobs import Job
from afina.domain.runs import BaseSpec, RunPaths, RunResult, RunSpec
from afina.errors import AfinaError, Internal
from afina.pipeline.faults import fault_of
from afina.pipeline.gate import Candidate, GateRun, shown
from afina.pipeline.run_files import read_result, read_spec
from afina.service import bases, gate_reports
from afina.service.gate import GateOutcome
from afina.service.platform import Platform
from afina.store import jobs, models
from afina.store.gates import GateRow
from afina.text.renderer import Renderer

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
    candidate = Candidate.of_run(given.spec, given.result, given.manifest, wish.suite)
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
        row = gate_reports.next_gate(self.platform)
        if row is None:
            return False
        try:
            report = with_former(row, shown(self._run(row).run()))
        except AfinaError as error:
            if row.attempts + 1 < gate_reports.MOST_ATTEMPTS and error.retry:
                log.warning("gate.waits", model=row.model, error=error.message)
                return False
            gate_reports.finish(self.platform, row, None, error.one_line())
        except Exception as error:  # noqa: BLE001 - logged, and the work goes on
            log.error("gate.failed", model=row.model, **fault_of(error))
            gate_reports.finish(self.platform, row, None, "an internal error")
        else:
            gate_reports.finish(self.platform, row, report, "")
            log.info("gate.ran", model=row.model, verdict=report["verdict"])
        return True

    def _run(self, row: GateRow) -> GateRun:
        with self.platform.database.read() as tx:
            model = models.get_model(tx, row.model)
        if model is None:
            raise Internal("the model is gone")
        base = bases.get_base(self.platform, model.base_id)
        if base is None or not base.admitted:
            raise Internal(f"its base {model.base_id} is not on this machine")
        paths = RunPaths(self.platform.settings.runs / row.job_id)
        result = read_result(paths) if row.job_id else None
        if result is not None:
            spec = replace(read_spec(paths), base=BaseSpec(base.id, base.path, base.sha256))
            candidate = Candidate.of_run(spec, result, model.manifest, row.suite)
        else:
            # Its run went with its files: what needs no rows is measured all the same.
            ends = Renderer.load(Path(base.path)).end_tokens
            of = BaseSpec(base.id, base.path, base.sha256)
            candidate = Candidate(of, ends, model.manifest, row.suite, row.job_id)
        return GateRun(self.platform, candidate, lambda: None)


def with_former(row: GateRow, report: dict[str, Any]) -> dict[str, Any]:
    """A report with what a former one measured by rows that are gone since: neither the model nor
    those rows have changed."""
    former = {part["name"]: part for part in (row.report or {}).get("parts", ())}
    parts = [
        former[part["name"]]
        if any(one["name"] == "rows_gone" for one in part["told"])
        and former.get(part["name"], {}).get("measured")
        else part
        for part in report["parts"]
    ]
    reasons = [reason for part in parts for reason in part["reasons"]]
    verdict = "failed" if reasons else report["verdict"]
    return report | {"parts": parts, "reasons": reasons, "verdict": verdict}
