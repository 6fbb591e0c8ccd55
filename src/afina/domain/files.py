"""Uploaded and produced files: rows that point at immutable blobs."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Purpose(enum.StrEnum):
    """Why a file exists. Clients may upload the first three; results are ours."""

    FINE_TUNE = "fine-tune"
    USER_DATA = "user_data"
    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"
    FINE_TUNE_RESULTS = "fine-tune-results"
    """Tables of a job's numbers, and the report of moderation on a file that it refused."""


class FileStatus(enum.StrEnum):
    """`processed` once the bytes are stored; `error` when they cannot be used."""

    UPLOADED = "uploaded"
    PROCESSED = "processed"
    ERROR = "error"


@dataclass(frozen=True)
class StoredFile:
    """A file of a project. `sha256` names the blob that holds its bytes."""

    id: str
    project_id: str
    filename: str
    purpose: Purpose
    bytes: int
    sha256: str
    created_at: int
    status: FileStatus = FileStatus.PROCESSED
    status_details: str | None = None
    expires_at: int | None = None

    @property
    def is_table(self) -> bool:
        """Whether it is a table of a job's numbers, which the wire carries as base64."""
        return self.purpose is Purpose.FINE_TUNE_RESULTS and self.filename.endswith(".csv")
