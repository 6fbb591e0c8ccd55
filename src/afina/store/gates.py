"""Rows of the gate: what was asked for each tuned model, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from afina.domain.models import ModelState, TunedModel
from afina.store.database import Tx
from afina.store.gate_tables import GATES
from afina.store.tables import MODELS


@dataclass(frozen=True)
class GateRow:
    """The gate of one model. `status` is pending, done or failed."""

    model: str
    job_id: str
    policy: str
    suite: str
    status: str
    created_at: int
    report: Mapping[str, Any] | None = None
    note: str | None = None
    """Why a gate failed to say anything."""
    attempts: int = 0
    finished_at: int | None = None


def insert_gate(tx: Tx, gate: GateRow, available_at: float) -> None:
    """Adds a gate; its model's row is there."""
    values = {name: getattr(gate, name) for name in GateRow.__dataclass_fields__}
    tx.execute(insert(GATES).values(values | {"available_at": available_at}))


def get_gate(tx: Tx, model: str) -> GateRow | None:
    """The gate of a model, if one was asked for."""
    row = tx.execute(select(GATES).where(GATES.c.model == model)).one_or_none()
    return None if row is None else _gate(row)


def claim_gate(tx: Tx, now: float, lease_s: float) -> GateRow | None:
    """The oldest pending gate that nobody works on; it is free again after `lease_s`."""
    waiting = select(GATES).where(GATES.c.status == "pending", GATES.c.available_at <= now)
    row = tx.execute(waiting.order_by(GATES.c.created_at, GATES.c.model).limit(1)).one_or_none()
    if row is None:
        return None
    taken = tx.execute(
        update(GATES)
        .where(GATES.c.model == row.model, GATES.c.available_at == row.available_at)
        .values(available_at=now + lease_s, attempts=GATES.c.attempts + 1)
    )
    return _gate(row) if taken.rowcount == 1 else None


def ask_gate(tx: Tx, gate: GateRow, available_at: float) -> None:
    """A gate that has ended waits for its report again; the former one stays until then."""
    tx.execute(
        update(GATES)
        .where(GATES.c.model == gate.model)
        .values(
            suite=gate.suite, status=gate.status, attempts=gate.attempts, available_at=available_at
        )
    )


def end_gate(tx: Tx, gate: GateRow, now: int) -> bool:
    """Stores a gate's end, once; False where it has ended already."""
    ended = tx.execute(
        update(GATES)
        .where(GATES.c.model == gate.model, GATES.c.status == "pending")
        .values(status=gate.status, report=gate.report, note=gate.note, finished_at=now)
    )
    return bool(ended.rowcount == 1)


def gate_of_job(tx: Tx, job_id: str) -> GateRow | None:
    """The gate of what a job brought, if one was asked for."""
    row = tx.execute(select(GATES).where(GATES.c.job_id == job_id).limit(1)).one_or_none()
    return None if row is None else _gate(row)


def set_state(tx: Tx, model: TunedModel, state: ModelState) -> None:
    """A tuned model's standing with the gate: a checkpoint's alone, a job's model's with all that
    the job kept on the way."""
    wanted = MODELS.c.name == model.name
    if model.step is None and model.job_id is not None:
        set_states(tx, model.job_id, state)
    tx.execute(update(MODELS).where(wanted).values(state=state.value))


def set_states(tx: Tx, job_id: str, state: ModelState) -> None:
    """The standing of the checkpoints that a job kept."""
    kept = (MODELS.c.job_id == job_id, MODELS.c.step.is_not(None))
    tx.execute(update(MODELS).where(*kept).values(state=state.value))


def _gate(row: Row[Any]) -> GateRow:
    return GateRow(**{name: getattr(row, name) for name in GateRow.__dataclass_fields__})
