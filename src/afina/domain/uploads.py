"""An upload in parts: what was promised, what has come, and how it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

PART_BYTES: Final = 64 * 1024 * 1024
"""The largest part, as the wire API has it."""
TOTAL_BYTES: Final = 8 * 1024**3
"""The largest upload, as the wire API has it."""
OPEN_S: Final = 3600
"""How long an upload takes parts."""


class UploadStatus(enum.StrEnum):
    """`pending` takes parts; the others are final."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Upload:
    """An upload of a project. `file_id` is set once it is completed."""

    id: str
    project_id: str
    filename: str
    purpose: str
    mime_type: str
    bytes: int
    created_at: int
    expires_at: int
    expires_after_s: int | None = None
    """What was asked for the file that comes out."""
    status: UploadStatus = UploadStatus.PENDING
    file_id: str | None = None


@dataclass(frozen=True)
class UploadPart:
    """Bytes of an upload; `sha256` names the blob that holds them."""

    id: str
    upload_id: str
    bytes: int
    sha256: str
    created_at: int
