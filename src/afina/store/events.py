"""Events of jobs: appended once, whatever is replayed.

An event with a sequence above 0 is unique on (job, source, sequence): a second one is not added.
Sequence 0 means the next free one, for events that stand in one transaction with a move of the
job, which itself happens once.
"""

from __future__ import annotations

from collections.abc import Sequence

from afina.domain.events import JobEvent
from afina.store.database import Tx


def append_events(tx: Tx, job_id: str, fence: int, events: Sequence[JobEvent]) -> int:
    """Adds what is new of `events` and says how many that were. Raises StaleFence."""
    raise NotImplementedError


def ingest_run_events(
    tx: Tx, job_id: str, fence: int, attempt: int, events: Sequence[JobEvent], offset: int
) -> int:
    """Adds what is new and stores, in the same transaction, up to which byte of events.jsonl
    attempt `attempt` has been read. Raises StaleFence."""
    raise NotImplementedError


def run_offset(tx: Tx, job_id: str, attempt: int) -> int | None:
    """Up to which byte events.jsonl was read in that attempt; None before the first reading."""
    raise NotImplementedError
