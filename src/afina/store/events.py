"""Events of jobs: appended once, whatever is replayed.

An event with a sequence above 0 is unique on (job, source, sequence): a second one is not added.
Sequence 0 means the next free one, for events that stand in one transaction with a move of the
job, which itself happens once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update

from afina.domain.codec import decode, encode
from afina.domain.events import JobEvent
from afina.domain.pages import Page
from afina.domain.sayings import Said
from afina.store.database import Tx
from afina.store.dialects import insert_new
from afina.store.jobs import require_fence
from afina.store.ordering import read_page, values_of
from afina.store.tables import JOB_EVENTS, RUN_OFFSETS

_ASKED_AT_ONCE: Final = 500


def append_events(tx: Tx, job_id: str, fence: int, events: Sequence[JobEvent]) -> int:
    """Adds what is new of `events` and says how many that were. Raises StaleFence."""
    require_fence(tx, job_id, fence)
    return add_events(tx, job_id, events)


def ingest_run_events(
    tx: Tx, job_id: str, fence: int, attempt: int, events: Sequence[JobEvent], offset: int
) -> int:
    """Adds what is new and stores, in the same transaction, up to which byte of events.jsonl
    attempt `attempt` has been read. Raises StaleFence."""
    require_fence(tx, job_id, fence)
    added = add_events(tx, job_id, events)
    row = {"job_id": job_id, "attempt": attempt, "offset_bytes": offset}
    if insert_new(tx, RUN_OFFSETS, [row]) == 0:
        where = (RUN_OFFSETS.c.job_id == job_id, RUN_OFFSETS.c.attempt == attempt)
        tx.execute(update(RUN_OFFSETS).where(*where).values(offset_bytes=offset))
    return added


def run_offset(tx: Tx, job_id: str, attempt: int) -> int | None:
    """Up to which byte events.jsonl was read in that attempt; None before the first reading."""
    where = (RUN_OFFSETS.c.job_id == job_id, RUN_OFFSETS.c.attempt == attempt)
    found: int | None = tx.execute(select(RUN_OFFSETS.c.offset_bytes).where(*where)).scalar()
    return found


def list_events(tx: Tx, job_id: str, after: str | None, limit: int) -> Page[JobEvent]:
    """Newest first."""
    rows, more = read_page(tx, JOB_EVENTS, JOB_EVENTS.c.job_id == job_id, after=after, limit=limit)
    return Page(tuple(_event(row) for row in rows), more)


def all_events(tx: Tx, job_id: str) -> list[JobEvent]:
    """Every event of the job, oldest first."""
    query = select(JOB_EVENTS).where(JOB_EVENTS.c.job_id == job_id)
    return [_event(row) for row in tx.execute(query.order_by(JOB_EVENTS.c.order_key))]


def metrics_after(tx: Tx, job_id: str, after: int, limit: int | None) -> list[tuple[int, JobEvent]]:
    """Events of type `metrics` behind the place `after`, oldest first, each with its own place."""
    where = (
        JOB_EVENTS.c.job_id == job_id,
        JOB_EVENTS.c.order_key > after,
        JOB_EVENTS.c.type == "metrics",
    )
    query = select(JOB_EVENTS).where(*where).order_by(JOB_EVENTS.c.order_key)
    if limit is not None:
        query = query.limit(limit)
    return [(row.order_key, _event(row)) for row in tx.execute(query)]


def add_events(tx: Tx, job_id: str, events: Sequence[JobEvent]) -> int:
    """`append_events` without a fence, for what a user's own request says."""
    last = select(func.max(JOB_EVENTS.c.order_key)).where(JOB_EVENTS.c.job_id == job_id)
    order = tx.execute(last).scalar() or 0
    known = {source: _known(tx, job_id, source, events) for source in {e.source for e in events}}
    rows: list[dict[str, Any]] = []
    for event in events:
        taken, highest = known[event.source]
        sequence = event.sequence or highest + 1
        if sequence in taken:
            continue
        taken.add(sequence)
        known[event.source] = (taken, max(highest, sequence))
        order += 1
        rows.append(_row(job_id, event, sequence, order))
    if rows:
        tx.execute(insert(JOB_EVENTS), rows)
    return len(rows)


def _known(tx: Tx, job_id: str, source: str, events: Sequence[JobEvent]) -> tuple[set[int], int]:
    """Which of the events' sequences are there already, and the highest of all."""
    where = (JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.source == source)
    highest = tx.execute(select(func.max(JOB_EVENTS.c.sequence)).where(*where)).scalar() or 0
    asked = [event.sequence for event in events if event.source == source and event.sequence]
    taken: set[int] = set()
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        some = JOB_EVENTS.c.sequence.in_(asked[start : start + _ASKED_AT_ONCE])
        taken |= set(tx.execute(select(JOB_EVENTS.c.sequence).where(*where, some)).scalars())
    return taken, highest


def _row(job_id: str, event: JobEvent, sequence: int, order: int) -> dict[str, Any]:
    return {
        "id": event.id,
        "job_id": job_id,
        "order_key": order,
        "source": event.source,
        "sequence": sequence,
        "created_at": event.created_at,
        "level": event.level,
        "type": event.type,
        "message": event.message,
        "data": _finite(encode(event.data)),
        "said": encode(event.said) or None,
    }


def _finite(value: Any) -> Any:
    """JSON has no word for NaN or infinity: they become null, which is what a client can read."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _event(row: Row[Any]) -> JobEvent:
    values = values_of(row, JOB_EVENTS)
    del values["order_key"]
    said = said_of(values.pop("said"))
    return JobEvent(**values, said=said)


def said_of(data: Any) -> tuple[Said, ...]:
    """What a row says by name; nothing for one from before there were names."""
    return tuple(decode(Said, one, "said") for one in data or ())
