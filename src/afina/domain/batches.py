"""A batch: many requests in a file, answered in the background within a day."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WINDOW_S: Final = 24 * 3600
MAX_LINES: Final = 50_000
MAX_BYTES: Final = 200 * 1024 * 1024
KNOWN_ENDPOINTS: Final = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
"""Those that the wire API names."""


class BatchStatus(enum.StrEnum):
    """The states of the wire API."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL: Final = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)
LIVE: Final = tuple(status for status in BatchStatus if status not in _TERMINAL)


@dataclass(frozen=True)
class Batch:
    """A batch as the store knows it. Times are Unix seconds; each state has its own."""

    id: str
    project_id: str
    organization_id: str
    key_id: str | None
    created_at: int
    expires_at: int
    endpoint: str
    input_file_id: str
    completion_window: str = "24h"
    status: BatchStatus = BatchStatus.VALIDATING
    metadata: Mapping[str, str] | None = None
    output_expires_after_s: int | None = None
    model: str | None = None
    errors: tuple[Mapping[str, Any], ...] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Mapping[str, int] | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    fence: int = 0


@dataclass(frozen=True)
class BatchLine:
    """One request of a batch: `number` counts the file's lines from 1."""

    number: int
    custom_id: str
    body: Mapping[str, Any] = field(default_factory=dict)


def line_key(batch_id: str, line: int) -> str:
    """24 characters that name a line's request wherever it is carried out: whoever repeats it
    after a crash is metered once and draws the same answer."""
    return hashlib.sha256(f"{batch_id}:{line}".encode()).hexdigest()[:24]


def line_seed(batch_id: str, line: int) -> int:
    """The seed of a request that names none."""
    return int(line_key(batch_id, line)[:7], 16)
