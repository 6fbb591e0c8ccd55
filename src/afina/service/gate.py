"""The gate's verdicts in the store: reports, states of models, events, and who released what.

A model is a candidate until its gate has spoken (policy `hold`), then released or held. With
policy `report` it is released at once, and the report follows. A key with the right to write
models may release a held one or hold a released one; the audit log says who did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.domain.events import JobEvent
from afina.domain.ids import EVENT
from afina.domain.jobs import Job
from afina.domain.models import ModelState, TunedModel
from afina.errors import Conflict, NotFound
from afina.service import aliases, audit
from afina.service.platform import Platform
from afina.store import events, gates, jobs, models
from afina.store.database import Tx
from afina.store.gates import GateRow

LEASE_S: Final = 600.0
MOST_ATTEMPTS: Final = 3
WORTH_A_WORD: Final = 0.25
"""Share of the base's abilities; who lost more is told."""
_PERCENT: Final = ("harmful_to_harmful", "harmful_to_harmless", "false_refusals")


@dataclass(frozen=True)
class GateOutcome:
    """What the gate was asked, and what it found: no report means that it is still to be made."""

    policy: str
    suite: str
    report: Mapping[str, Any] | None = None
    note: str | None = None
    """Why there will be no report."""

    @property
    def state(self) -> ModelState:
        """Where the model stands with it."""
        if self.policy != "hold":
            return ModelState.RELEASED
        passed = self.report is not None and self.report["verdict"] == "passed"
        return ModelState.RELEASED if passed else ModelState.HELD


def begin(platform: Platform, tx: Tx, job: Job, model: str, outcome: GateOutcome) -> list[JobEvent]:
    """Writes the gate of a model that is being published; the events that tell of it."""
    if outcome.policy == "off":
        return []
    now = platform.now()
    done = outcome.report is not None or outcome.note is not None
    row = GateRow(
        model=model,
        job_id=job.id,
        policy=outcome.policy,
        suite=outcome.suite,
        status="pending" if not done else "done" if outcome.report is not None else "failed",
        created_at=now,
        report=outcome.report,
        note=outcome.note,
        finished_at=now if done else None,
    )
    gates.insert_gate(tx, row, platform.clock.now())
    return told(platform, row) if done else []


def next_gate(platform: Platform) -> GateRow | None:
    """A gate that waits for its report, leased to the caller."""
    with platform.database.write() as tx:
        return gates.claim_gate(tx, platform.clock.now(), LEASE_S)


def finish(platform: Platform, row: GateRow, report: Mapping[str, Any] | None, note: str) -> None:
    """Stores a report that followed its model, or why there is none, and tells of it once."""
    status = "done" if report is not None else "failed"
    ended = replace(row, status=status, report=report, note=note or None)
    with platform.database.write() as tx:
        if not gates.end_gate(tx, ended, platform.now()):
            return
        if jobs.get_job(tx, row.job_id) is not None:
            events.add_events(tx, row.job_id, told(platform, ended))


def told(platform: Platform, row: GateRow) -> list[JobEvent]:
    """The events of a gate that has ended: one of type `moderation_checks`, as the hosted service
    has it, and a sentence for people."""
    if row.report is None:
        text = f"The gate of {row.model} could not be run: {row.note}"
        return [_event(platform, row.job_id, text, "warn")]
    report = row.report
    blocked = row.policy == "hold" and report["verdict"] != "passed"
    said = []
    safety = next((part for part in report["parts"] if part["name"] == "safety"), None)
    if safety is not None and safety["measured"]:
        results = [
            {"name": name, "score": safety["measures"][name]["value"], "passed": safety["passed"]}
            for name in _PERCENT
        ]
        data = {"blocked": blocked, "model": row.model, "results": results}
        data["categories"] = safety["details"]["categories"]
        text = f"Moderation checks for {row.model} {'passed' if safety['passed'] else 'failed'}"
        level = "info" if safety["passed"] else "warn"
        said.append(_event(platform, row.job_id, text, level, data))
    lost = _lost(report)
    if lost is not None and report["verdict"] != "failed":
        said.append(_event(platform, row.job_id, lost, "warn"))
    if report["verdict"] == "passed":
        said.append(_event(platform, row.job_id, f"The gate passed {row.model}", "info"))
    elif report["verdict"] == "incomplete":
        done = " and holds it back" if blocked else ""
        text = f"The gate could not measure the safety of {row.model}{done}: {_missing(report)}"
        said.append(_event(platform, row.job_id, text, "warn"))
    else:
        done = "held back" if blocked else "finds fault with"
        text = f"The gate {done} {row.model}: {'; '.join(report['reasons'])}"
        said.append(_event(platform, row.job_id, text, "warn"))
    return said


def gate_of(platform: Platform, model: str) -> GateRow | None:
    """The gate of a model; None where none was asked for."""
    with platform.database.read() as tx:
        return gates.get_gate(tx, model)


def release(platform: Platform, caller: Caller, name: str) -> TunedModel:
    """The model's name answers from now on. Raises NotFound, Conflict."""
    return _set(platform, caller, name, ModelState.RELEASED, "model.released")


def hold(platform: Platform, caller: Caller, name: str) -> TunedModel:
    """The model's name answers no more. Raises NotFound, Conflict."""
    return _set(platform, caller, name, ModelState.HELD, "model.held")


def _set(platform: Platform, caller: Caller, name: str, state: ModelState, kind: str) -> TunedModel:
    with platform.database.write() as tx:
        model = models.get_model(tx, name, caller.project_id)
        if model is None or model.project_id != caller.project_id:
            raise NotFound(
                f"There is no tuned model `{name[:300]}` in this project.", param="model"
            )
        if model.state is state:
            raise Conflict(f"The model `{name}` is {state.value} already.", param="model")
        gates.set_state(tx, name, state)
        if state is ModelState.RELEASED:
            aliases.follow_release(platform, tx, caller, name)
        audit.note(platform, tx, caller, kind, name, before=model.state.value)
    return replace(model, state=state)


def reason_held(platform: Platform, name: str) -> str:
    """Why a held model does not answer, in half a sentence."""
    row = gate_of(platform, name)
    if row is not None and row.policy == "hold" and row.report is None:
        return f"its gate could not be run ({row.note})"
    if row is None or row.report is None or row.report["verdict"] == "passed":
        return "it was held back by a key of this project"
    if row.report["verdict"] == "incomplete":
        return f"its safety could not be measured ({_missing(row.report)})"
    return "; ".join(row.report["reasons"])


def _lost(report: Mapping[str, Any]) -> str | None:
    """A sentence on abilities that are surely gone, though no limit holds the model for it."""
    part = next((part for part in report["parts"] if part["name"] == "regression"), None)
    if part is None or not part["measured"]:
        return None
    lost = part["measures"]["lost"]
    if lost["low"] <= WORTH_A_WORD:
        return None
    return (
        f"{round(lost['value'] * lost['n'])} of {lost['n']} abilities of the base are gone; "
        "gate.max_ability_loss can hold such a model"
    )


def _missing(report: Mapping[str, Any]) -> str:
    return "; ".join(p["note"] for p in report["parts"] if p["name"] == "safety")


def _event(
    platform: Platform,
    job_id: str,
    text: str,
    level: Any,
    checks: Mapping[str, Any] | None = None,
) -> JobEvent:
    return JobEvent(
        id=platform.ids.new(EVENT),
        job_id=job_id,
        created_at=platform.now(),
        level=level,
        message=text,
        type="message" if checks is None else "moderation_checks",
        data=checks or {},
    )
