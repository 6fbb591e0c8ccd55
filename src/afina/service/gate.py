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
from afina.domain.audit import AuditEntry
from afina.domain.codec import decode
from afina.domain.events import JobEvent
from afina.domain.ids import EVENT
from afina.domain.jobs import Job
from afina.domain.models import LOSS_WORTH_A_WORD, ModelState, TunedModel
from afina.domain.sayings import Said, say, text_of
from afina.errors import Conflict, NotFound
from afina.service import aliases, audit
from afina.service.platform import Platform
from afina.store import audit as audit_rows
from afina.store import gates, jobs, models
from afina.store.database import Tx
from afina.store.gates import GateRow

BY_HAND: Final = ("model.held", "model.released")
"""What people do to a model's right to answer, as the audit log has it."""
BY_GATE: Final = ("model.gate_held", "model.gate_released")
"""What a gate does that was asked again."""
_FAULT_OF: Final = {
    "harmful_to_harmful": "harm_asked_rose",
    "harmful_to_harmless": "harm_unasked_rose",
    "false_refusals": "refusals_rose",
}
"""What is measured of safety, and the fault that is found with it."""


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


def told(
    platform: Platform, row: GateRow, *, held: bool | None = None, by_hand: bool = False
) -> list[JobEvent]:
    """The events of a gate that has ended: one of type `moderation_checks`, as the hosted service
    has it, and a sentence for people. `held`: whether the model is, `by_hand`: whether people
    decided that; by default the policy does."""
    if row.report is None or row.note:
        unrun = (say("gate_unrun", id=row.model), say("words", text=row.note or ""))
        return [message(platform, row.job_id, unrun, "warn")]
    report = row.report
    passed = report["verdict"] == "passed"
    blocked = not passed and (row.policy == "hold" if held is None else held and not by_hand)
    made: list[JobEvent] = []
    safety = next((part for part in report["parts"] if part["name"] == "safety"), None)
    if safety is not None and safety["measured"]:
        faults = {one["name"] for one in safety.get("faults", ())}
        results = [
            {
                "name": name,
                "score": safety["measures"][name]["value"],
                "passed": fault not in faults if faults else safety["passed"],
            }
            for name, fault in _FAULT_OF.items()
        ]
        data = {"blocked": blocked, "model": row.model, "results": results}
        data["categories"] = safety["details"]["categories"]
        checked = say("safe" if safety["passed"] else "unsafe", id=row.model)
        level = "info" if safety["passed"] else "warn"
        made.append(message(platform, row.job_id, (checked,), level, data))
    lost = _lost(report)
    if lost is not None and report["verdict"] != "failed":
        made.append(message(platform, row.job_id, (lost,), "warn"))
    if passed:
        word = (say("gate_passed", id=row.model), *((say("held_by_hand"),) if held else ()))
        made.append(message(platform, row.job_id, word, "info"))
    elif report["verdict"] == "incomplete":
        name = "gate_unsafe_holds" if blocked else "gate_unsafe"
        unsafe = next(part for part in report["parts"] if part["name"] == "safety")
        why = told_in(unsafe)
        made.append(message(platform, row.job_id, (say(name, id=row.model), *why), "warn"))
    else:
        name = "gate_holds" if blocked else "gate_finds"
        why = faults_in(report)
        made.append(message(platform, row.job_id, (say(name, id=row.model), *why), "warn"))
    return made


def faults_in(report: Mapping[str, Any]) -> tuple[Said, ...]:
    """What is beyond a limit. Reports from before sentences had names have words alone."""
    found = [one for part in report["parts"] for one in part.get("faults", ())]
    if found:
        return tuple(decode(Said, one, "faults") for one in found)
    return tuple(say("words", text=reason) for reason in report["reasons"])


def told_in(part: Mapping[str, Any]) -> tuple[Said, ...]:
    """What else a reader should know of a part of a report, or why it was not measured."""
    if part.get("told"):
        return tuple(decode(Said, one, "told") for one in part["told"])
    return (say("words", text=part["note"]),) if part["note"] else ()


def gate_of(platform: Platform, model: str) -> GateRow | None:
    """The gate of a model; None where none was asked for."""
    with platform.database.read() as tx:
        return gates.get_gate(tx, model)


def gate_over(platform: Platform, model: TunedModel) -> GateRow | None:
    """The gate that speaks of a model: its own, or for a checkpoint that of its job's model. None
    where none was asked for, or none has been asked yet."""
    with platform.database.read() as tx:
        row = gates.get_gate(tx, model.name)
        return row or (None if model.job_id is None else gates.gate_of_job(tx, model.job_id))


def changes(platform: Platform, model: TunedModel) -> list[AuditEntry]:
    """Who let the model answer or held it back since it was made, oldest first; for a checkpoint
    also what was done to all that its job brought."""
    with platform.database.read() as tx:
        return audit_rows.entries_on(tx, BY_HAND + BY_GATE, _names(tx, model))


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
        gates.set_state(tx, model, state)
        if state is ModelState.RELEASED:
            aliases.follow_release(platform, tx, caller, model)
        audit.note(platform, tx, caller, kind, name, before=model.state.value)
    return replace(model, state=state)


def reason_held(platform: Platform, model: TunedModel) -> str:
    """Why a held model does not answer, in half a sentence."""
    with platform.database.read() as tx:
        by_hand = _last_change(tx, model)
        row = gates.get_gate(tx, model.name)
        whose = "its gate"
        if row is None and model.job_id is not None:
            row = gates.gate_of_job(tx, model.job_id)
            whose = "the gate of its job"
            job = jobs.get_job(tx, model.job_id)
            if by_hand is None and row is None and job is not None and not job.status.is_terminal:
                return f"the gate of its job {job.id} is asked at the job's end"
    found = _found(row, whose)
    if by_hand is None:
        return found or "the gate of its job held it, and its report went with the job's model"
    who = f"the key {by_hand.key_id}" if by_hand.key_id else "a person of this project"
    return f"{who} held it back" + (f"; {found}" if found else "")


def _found(row: GateRow | None, whose: str) -> str:
    """What a gate has against a model, in half a sentence; empty where nothing."""
    if row is None:
        return ""
    if row.status == "pending":
        before = _found(replace(row, status="done"), whose) if row.report or row.note else ""
        return f"{before}; it is asked again" if before else f"{whose} is being asked"
    if row.report is None:
        return f"{whose} could not be run ({row.note})"
    if row.report["verdict"] == "passed":
        return ""
    if row.report["verdict"] == "incomplete":
        return f"{whose} could not measure safety ({_missing(row.report)})"
    return f"{whose} found: {'; '.join(row.report['reasons'])}"


def _last_change(tx: Tx, model: TunedModel) -> AuditEntry | None:
    """Who held the model back by hand, where that is the last word on it."""
    found = audit_rows.entries_on(tx, BY_HAND, _names(tx, model))
    return found[-1] if found and found[-1].type == "model.held" else None


def _names(tx: Tx, model: TunedModel) -> list[str]:
    """What is released or held together with the model."""
    if model.step is None or model.job_id is None:
        return [model.name]
    return [model.name, *models.names_of_job(tx, model.job_id)]


def _lost(report: Mapping[str, Any]) -> Said | None:
    """A sentence on abilities that are surely gone, though no limit holds the model for it."""
    part = next((part for part in report["parts"] if part["name"] == "regression"), None)
    if part is None or not part["measured"]:
        return None
    lost = part["measures"]["lost"]
    if lost["low"] <= LOSS_WORTH_A_WORD:
        return None
    return say("abilities", n=round(lost["value"] * lost["n"]), all=lost["n"])


def _missing(report: Mapping[str, Any]) -> str:
    return "; ".join(p["note"] for p in report["parts"] if p["name"] == "safety")


def message(
    platform: Platform,
    job_id: str,
    said: tuple[Said, ...],
    level: Any,
    checks: Mapping[str, Any] | None = None,
) -> JobEvent:
    """An event that says something of a gate; with `checks`, what the hosted service says too."""
    return JobEvent(
        id=platform.ids.new(EVENT),
        job_id=job_id,
        created_at=platform.now(),
        level=level,
        message=text_of(said),
        type="message" if checks is None else "moderation_checks",
        data=checks or {},
        said=said,
    )
