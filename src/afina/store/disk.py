"""What the disk's clean-up asks the database: who refers to a blob, which runs and shards are still
needed, and which tunes nobody has asked for long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_, select

from afina.domain.jobs import JobStatus
from afina.store.answer_tables import RESPONSES, STORED_COMPLETIONS
from afina.store.database import Tx
from afina.store.gate_tables import GATES
from afina.store.tables import BLOB_REFS, FILES, JOBS, LEDGER, MODELS, ORGANIZATIONS
from afina.store.wire_tables import ALIASES, CHECKPOINT_PERMISSIONS

_OVER = [status.value for status in JobStatus if status.is_terminal]


@dataclass(frozen=True)
class IdleTune:
    """A tuned model that nobody asks: its last answer, or its beginning, in Unix seconds."""

    name: str
    project_id: str
    last_used: int


def holders(tx: Tx) -> dict[str, str]:
    """By sha256 of a blob, the kind of one that refers to it: a model before all others."""
    rows = tx.execute(select(BLOB_REFS.c.sha256, BLOB_REFS.c.holder_kind))
    found: dict[str, str] = {}
    for sha256, kind in rows:
        if found.get(sha256) != "model":
            found[sha256] = kind
    return found


def _needed() -> ColumnElement[bool]:
    """The job is not over, or its gate is not."""
    gated = select(GATES.c.job_id).where(GATES.c.status == "pending")
    return or_(JOBS.c.status.not_in(_OVER), JOBS.c.id.in_(gated))


def needed_jobs(tx: Tx) -> set[str]:
    """Jobs whose run directory is still worked with."""
    return set(tx.execute(select(JOBS.c.id).where(_needed())).scalars())


def needed_shards(tx: Tx) -> set[str]:
    """The hashes of files that those jobs train on or validate with."""
    used = or_(FILES.c.id == JOBS.c.training_file, FILES.c.id == JOBS.c.validation_file)
    query = select(FILES.c.sha256).join_from(JOBS, FILES, used).where(_needed())
    return set(tx.execute(query).scalars())


def idle_tunes(tx: Tx, before: int) -> list[IdleTune]:
    """Tuned models that nobody has asked since `before` and nothing refers to: no alias ever meant
    them, no other project may use them, no job began with them. The idlest first."""
    used = select(LEDGER.c.model, func.max(LEDGER.c.time).label("time")).group_by(LEDGER.c.model)
    asked = used.subquery()
    last: Any = func.max(func.coalesce(asked.c.time, 0), MODELS.c.created_at)
    if tx.dialect.name == "postgresql":
        last = func.greatest(func.coalesce(asked.c.time, 0), MODELS.c.created_at)
    aliased = select(ALIASES.c.target).where(ALIASES.c.target.is_not(None))
    parents = select(JOBS.c.parent_manifest).where(JOBS.c.parent_manifest.is_not(None))
    query = (
        select(MODELS.c.name, MODELS.c.project_id, last.label("last_used"))
        .join_from(MODELS, asked, asked.c.model == MODELS.c.name, isouter=True)
        .where(
            MODELS.c.name.not_in(aliased),
            MODELS.c.name.not_in(select(CHECKPOINT_PERMISSIONS.c.model)),
            MODELS.c.manifest.not_in(parents),
            MODELS.c.created_at < before,
        )
        .order_by(last, MODELS.c.name)
    )
    rows = [IdleTune(row.name, row.project_id, int(row.last_used)) for row in tx.execute(query)]
    return [row for row in rows if row.last_used < before]


def manifest_of(tx: Tx, name: str) -> str | None:
    """The manifest of a tuned model."""
    found: str | None = tx.execute(select(MODELS.c.manifest).where(MODELS.c.name == name)).scalar()
    return found


def kept_answers_bytes(tx: Tx) -> int:
    """About how much of the database is stored completions and responses."""
    columns = (
        (STORED_COMPLETIONS, ("request", "answer")),
        (RESPONSES, ("items", "document")),
    )
    total = 0
    for table, names in columns:
        sizes = sum(func.length(cast(table.c[name], Text)) for name in names)
        total += int(tx.execute(select(func.coalesce(func.sum(sizes), 0))).scalar_one())
    return total


def first_organization(tx: Tx) -> str | None:
    """The organization of the machine's first key, in whose audit log the platform's own doings
    stand."""
    query = select(ORGANIZATIONS.c.id).order_by(ORGANIZATIONS.c.created_at, ORGANIZATIONS.c.id)
    found: str | None = tx.execute(query.limit(1)).scalar()
    return found
