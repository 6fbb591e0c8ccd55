"""What jobs under way hold of the budgets, in money of this moment.

A job is promised all of its epochs before it trains; those who come later see that promise, those
who came before do not. Answers see what has begun alone: a job gives way to them at the end of an
epoch, and what it has trained by then is paid whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from afina.domain.jobs import JobStatus
from afina.domain.limits import Hold
from afina.service.platform import Platform
from afina.service.pricing import prices_of
from afina.store import holds, ledger
from afina.store.database import Tx

_DAY_S: Final = 86_400


@dataclass(frozen=True)
class Held:
    """Picodollars by holder (projects and their organization), and the trained tokens in them."""

    pico: dict[str, int]
    tokens: int = 0

    def of(self, holder_id: str) -> int:
        """What is held of that project's or organization's budget."""
        return self.pico.get(holder_id, 0)


NOTHING: Final = Held({})


def promised_before(
    platform: Platform, tx: Tx, organization_id: str, job_id: str | None = None
) -> Held:
    """What was promised before `job_id` was; all of it where that job has no promise yet. A paused
    job is promised what it has begun."""
    ahead = []
    for hold, status in holds.list_holds(tx, organization_id):
        if hold.job_id == job_id:
            break
        ahead.append((hold, status))
    return _priced(platform, tx, organization_id, ahead, _promised)


def begun(platform: Platform, tx: Tx, organization_id: str) -> Held:
    """What jobs under way have begun to train and the ledger does not know yet."""
    found = holds.list_holds(tx, organization_id)
    return _priced(platform, tx, organization_id, found, lambda hold, _: hold.begun_tokens)


def free_left(platform: Platform, tx: Tx, organization_id: str) -> int:
    """Tokens that the organization may train today for nothing."""
    free = platform.settings.free_training
    today = platform.now() // _DAY_S * _DAY_S
    if free.until is not None and _date_of(today) >= free.until:
        return 0
    return max(0, free.tokens_per_day - ledger.trained_since(tx, organization_id, today))


def _promised(hold: Hold, status: JobStatus) -> int:
    return hold.begun_tokens if status is JobStatus.PAUSED else hold.promised_tokens


def _priced(
    platform: Platform,
    tx: Tx,
    organization_id: str,
    found: Iterable[tuple[Hold, JobStatus]],
    tokens_of: Callable[[Hold, JobStatus], int],
) -> Held:
    pico: dict[str, int] = {}
    held = 0
    free = None
    for hold, status in found:
        tokens = tokens_of(hold, status)
        if free is None:
            free = free_left(platform, tx, organization_id)
        paid = max(0, tokens - max(0, free - held))
        cost = prices_of(platform.settings, hold.model).training_cost(paid)
        held += tokens
        for holder in (hold.project_id, organization_id):
            pico[holder] = pico.get(holder, 0) + cost
    return Held(pico, held)


def _date_of(unix_s: int) -> date:
    return datetime.fromtimestamp(unix_s, UTC).date()
