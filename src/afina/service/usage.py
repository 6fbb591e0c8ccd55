"""Metering: the ledger of training and inference, written once per request and read in sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from afina.domain.accounts import Caller
from afina.domain.ledger import LedgerEntry, UsageSum
from afina.domain.pages import Page
from afina.service.platform import Platform
from afina.serving.protocol import UsageRecord

Grouping = Literal["model", "kind", "day", "key"]


@dataclass(frozen=True)
class UsageQuery:
    """A span of time: from `start` to before `end`, in Unix seconds; None is open."""

    start: int | None = None
    end: int | None = None
    group_by: tuple[Grouping, ...] = ("model", "kind")


def usage_tag(caller: Caller, model: str) -> dict[str, str]:
    """The `tag` of an engine request, by which its usage finds its project, key and model."""
    raise NotImplementedError


def record_inference(platform: Platform, records: Sequence[UsageRecord]) -> int:
    """Writes the engine's usage into the ledger; says how many entries were new."""
    raise NotImplementedError


def list_ledger(
    platform: Platform, caller: Caller, after: str | None = None, limit: int = 100
) -> Page[LedgerEntry]:
    """The project's entries, newest first."""
    raise NotImplementedError


def summarize(
    platform: Platform, caller: Caller, query: UsageQuery = UsageQuery()
) -> list[UsageSum]:
    """Sums of the project's entries in groups; exact integers."""
    raise NotImplementedError
