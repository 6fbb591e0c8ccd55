"""Reports of the gate that follow their models: those that policy `report` waits for, and those
that somebody asks for again.

A gate that is asked again changes nothing while it works: a held model stays held, one that answers
goes on, and the former report is shown until there is a new one. Then policy `hold` decides anew,
unless a person has released or held the model since it was made: that word stands. What could not
be measured changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.domain.jobs import Job
from afina.domain.models import ModelState, TunedModel
from afina.domain.sayings import say
from afina.errors import Conflict, NotFound
from afina.service import aliases, audit, bases
from afina.service.gate import BY_HAND, message, told
from afina.service.platform import Platform
from afina.store import audit as audit_rows
from afina.store import events, gates, jobs, models
from afina.store.database import Tx
from afina.store.gates import GateRow

LEASE_S: Final = 600.0
MOST_ATTEMPTS: Final = 3
ASKED: Final = "model.gate_asked"
"""Somebody wanted the gate to measure a model again, as the audit log has it."""
_STATES: Final = {"passed": ModelState.RELEASED, "failed": ModelState.HELD}


def next_gate(platform: Platform) -> GateRow | None:
    """A gate that waits for its report, leased to the caller."""
    with platform.database.write() as tx:
        return gates.claim_gate(tx, platform.clock.now(), LEASE_S)


def finish(platform: Platform, row: GateRow, report: Mapping[str, Any] | None, note: str) -> None:
    """Stores a report that followed its model, or why there is none, and tells of it once. A
    former report stays where there is no new one."""
    shown = row.report if report is None else report
    status = "failed" if shown is None else "done"
    ended = replace(row, status=status, report=shown, note=note or None)
    with platform.database.write() as tx:
        if not gates.end_gate(tx, ended, platform.now()):
            return
        held, by_hand = (None, False) if report is None else _decide(platform, tx, ended)
        if jobs.get_job(tx, row.job_id) is not None:
            events.add_events(tx, row.job_id, told(platform, ended, held=held, by_hand=by_hand))


def ask_again(platform: Platform, caller: Caller, name: str, suite: str | None = None) -> GateRow:
    """The gate is to measure a model of this project again, by the suite that it had, else the
    default one. Raises NotFound, and Conflict where it cannot be asked or is being asked."""
    with platform.database.write() as tx:
        model = models.get_model(tx, name, caller.project_id)
        if model is None or model.project_id != caller.project_id:
            raise NotFound(
                f"There is no tuned model `{name[:300]}` in this project.", param="model"
            )
        job = None if model.job_id is None else jobs.get_job(tx, model.job_id)
        before = gates.get_gate(tx, name)
        _refuse(platform, model, job, before)
        row = _asked(platform, tx, model, before, suite)
        audit.note(platform, tx, caller, ASKED, name, suite=row.suite)
        if job is not None:
            said = (say("gate_asked", id=name),)
            events.add_events(tx, job.id, [message(platform, job.id, said, "info")])
    return row


def _refuse(platform: Platform, model: TunedModel, job: Job | None, before: GateRow | None) -> None:
    if before is not None and before.status == "pending":
        raise Conflict(
            f"The gate is measuring `{model.name}` already.",
            param="model",
            code="gate_pending",
            remedy=f"`afina models card {model.name}` shows what it finds.",
        )
    if job is not None and not job.status.is_terminal:
        raise Conflict(
            f"The job {job.id} of `{model.name}` has not ended; its gate is asked at its end.",
            param="model",
        )
    if model.step is not None:
        raise Conflict(
            f"`{model.name}` is a checkpoint: the gate measures the model of its job, and what it "
            "finds holds for its checkpoints.",
            param="model",
            remedy="Name the job's model, or release the checkpoint by hand: "
            f"`afina models release {model.name}`.",
        )
    base = bases.get_base(platform, model.base_id)
    if base is None or not base.admitted:
        raise Conflict(
            f"The base {model.base_id} of `{model.name}` is not on this machine, and the gate "
            "measures beside it.",
            param="model",
            remedy="Pull it again with `afina models pull`.",
        )


def _asked(
    platform: Platform, tx: Tx, model: TunedModel, before: GateRow | None, suite: str | None
) -> GateRow:
    if before is None:
        wanted = suite or "default"
        row = GateRow(model.name, model.job_id or "", "report", wanted, "pending", platform.now())
        gates.insert_gate(tx, row, platform.clock.now())
        return row
    row = replace(before, suite=suite or before.suite, status="pending", attempts=0)
    gates.ask_gate(tx, row, platform.clock.now())
    return row


def _decide(platform: Platform, tx: Tx, row: GateRow) -> tuple[bool | None, bool]:
    """What policy `hold` makes of a model that was measured again: whether it is held now (None for
    the other policies), and whether that is what people decided."""
    model = models.get_model(tx, row.model)
    if row.policy != "hold" or model is None or row.report is None:
        return None, False
    state = _STATES.get(row.report["verdict"], model.state)
    by_hand = bool(audit_rows.entries_on(tx, BY_HAND, [model.name]))
    if by_hand:
        state = model.state
    if state is not model.state:
        asked = audit_rows.entries_on(tx, (ASKED,), [model.name])[-1]
        caller = Caller(
            model.project_id, asked.key_id or "", asked.organization_id, user_id=asked.user_id
        )
        gates.set_state(tx, model, state)
        if state is ModelState.RELEASED:
            aliases.follow_release(platform, tx, caller, model)
        kind = "model.gate_held" if state is ModelState.HELD else "model.gate_released"
        audit.note(platform, tx, caller, kind, model.name, before=model.state.value)
    return state is ModelState.HELD, by_hand
