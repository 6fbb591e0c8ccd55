"""Usage and costs of an organization in buckets of time, as its dashboards read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from afina.domain.ledger import EntryKind

WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86_400}
"""Buckets by name, in seconds; they begin at multiples of their width, in UTC."""
GROUPS: Final = ("project_id", "user_id", "api_key_id", "model", "batch", "line_item")


@dataclass(frozen=True)
class ReportQuery:
    """What is asked: entries of `kinds` from `start` on, in `limit` buckets of `width_s`.

    Empty filters mean all. `groups` are of GROUPS.
    """

    kinds: tuple[EntryKind, ...]
    start: int
    end: int
    width_s: int
    limit: int
    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    batch: bool | None = None
    line_items: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportLine:
    """Sums of a group within a bucket; `group` holds what was grouped by."""

    group: tuple[tuple[str, str | bool | None], ...]
    requests: int
    trained_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount_pico: int

    @property
    def tokens(self) -> int:
        """All tokens that were paid for."""
        return self.trained_tokens + self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class ReportBucket:
    """From `start` to before `end`, in Unix seconds."""

    start: int
    end: int
    lines: tuple[ReportLine, ...]


@dataclass(frozen=True)
class Report:
    """Buckets in order, empty ones too; `next_start` is where the next page begins."""

    buckets: tuple[ReportBucket, ...]
    next_start: int | None
