"""Rate limits and budgets: how much a project may ask for, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

PICO_A_CENT: Final = 10**10


@dataclass(frozen=True)
class RateLimit:
    """A project's limits for one model; None is no limit."""

    model: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None


@dataclass(frozen=True)
class SpendLimit:
    """A hard limit by the calendar month (UTC), in cents; the holder is an organization or a
    project."""

    holder_id: str
    organization_id: str
    cents: int
    updated_at: int


@dataclass(frozen=True)
class SpendAlert:
    """A soft limit: crossing it is noted once a month. Nothing is mailed from here; the
    recipients stand in the event that the alert leaves."""

    id: str
    holder_id: str
    organization_id: str
    cents: int
    recipients: tuple[str, ...]
    subject_prefix: str | None
    created_at: int
    raised_month: str | None = None


@dataclass(frozen=True)
class Hold:
    """What a job may still cost: it is held until the job is over, when the ledger has what it did
    cost. In tokens, because prices and free tokens are those of the moment at which one looks."""

    job_id: str
    project_id: str
    organization_id: str
    model: str
    """The base model, which has the price."""
    tokens_an_epoch: int
    epochs: int
    """As many as are planned."""
    begun: int = 0
    """As many as have begun: what a trainer has begun is paid, whatever becomes of the job."""

    @property
    def promised_tokens(self) -> int:
        return self.epochs * self.tokens_an_epoch

    @property
    def begun_tokens(self) -> int:
        return self.begun * self.tokens_an_epoch


@dataclass(frozen=True)
class Bucket:
    """A token bucket: `level` of `capacity` is left at `time` (seconds), and the whole capacity
    comes back in `period_s`."""

    capacity: float
    period_s: float
    level: float
    time: float

    @classmethod
    def full(cls, capacity: float, period_s: float, now: float) -> Bucket:
        """An untouched bucket."""
        return cls(capacity, period_s, capacity, now)

    def at(self, now: float) -> Bucket:
        """The bucket at a later moment."""
        gained = max(0.0, now - self.time) * self.capacity / self.period_s
        return Bucket(self.capacity, self.period_s, min(self.capacity, self.level + gained), now)

    def less(self, amount: float) -> Bucket:
        """With `amount` taken out; the level may fall below nothing when an answer was longer than
        foreseen."""
        return Bucket(self.capacity, self.period_s, self.level - amount, self.time)

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` is there; of more than the capacity, until it is full. A bucket
        that holds nothing is always full."""
        if self.capacity <= 0:
            return 0.0
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing * self.period_s / self.capacity)

    @property
    def reset_s(self) -> float:
        """Seconds until it is full again."""
        return self.wait_s(self.capacity)


def month_of(unix_s: int) -> tuple[str, int]:
    """The calendar month (UTC) of a moment, as 2026-11, and the moment at which it began."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    start = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    return f"{start:%Y-%m}", int(start.timestamp())


def in_duration(seconds: float) -> str:
    """`20ms`, `1s`, `6m0s`: how the headers write a span of time."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
