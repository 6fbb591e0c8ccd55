"""Strict shapes of what clients send about uploads in parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from afina.domain.uploads import TOTAL_BYTES
from afina.service.refusals import LaxWire, Wire


class UploadExpiry(Wire):
    """When the file that comes out expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class UploadCreate(Wire):
    """POST /v1/uploads."""

    bytes: Annotated[int, Field(ge=1, le=TOTAL_BYTES)]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: Annotated[str, Field(min_length=1, max_length=255)]
    purpose: Literal["fine-tune", "user_data", "assistants", "batch", "vision", "evals"]
    expires_after: UploadExpiry | None = None


class PartForm(LaxWire):
    """The fields of POST /v1/uploads/{id}/parts beside the bytes: there are none."""


class UploadComplete(Wire):
    """POST /v1/uploads/{id}/complete."""

    part_ids: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1)]
    md5: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None
