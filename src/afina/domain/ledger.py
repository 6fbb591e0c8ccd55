"""The ledger: the append-only record of tokens and money, one entry a training or a request."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class EntryKind(enum.StrEnum):
    """What was used. `training` is unique by job id, the others by request id."""

    TRAINING = "training"
    INFERENCE = "inference"
    EMBEDDING = "embedding"
    MODERATION = "moderation"


@dataclass(frozen=True)
class LedgerEntry:
    """Tokens and their price in picodollars at the time they were used."""

    id: str
    kind: EntryKind
    request_id: str
    """What makes the entry unique within its kind: the request's id, or the job's."""
    time: int
    organization_id: str
    project_id: str
    key_id: str | None
    base_id: str
    model: str
    """The public name that was asked, or the tuned model that came out."""
    amount_pico: int
    trained_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Part of `prompt_tokens`."""
    completion_tokens: int = 0
    outcome: str = "finished"
    batch: bool | None = None
    """Whether it was an answer to a line of a batch; None where nobody noted it."""


@dataclass(frozen=True)
class UsageSum:
    """A group of the ledger: `group` holds what it was grouped by (model, kind, day, key)."""

    group: tuple[tuple[str, str], ...]
    entries: int
    trained_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    amount_pico: int
