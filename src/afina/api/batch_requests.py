"""Strict shapes of what clients send about batches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from afina.api.requests import After, Pair, PairName
from afina.service.refusals import LaxWire, Wire


class OutputExpiry(Wire):
    """When output and error files expire."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchCreate(Wire):
    """POST /v1/batches."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=512)]
    endpoint: Annotated[str, Field(min_length=1, max_length=100)]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[PairName, Pair], Field(max_length=16)] | None = None
    output_expires_after: OutputExpiry | None = None


class BatchListQuery(LaxWire):
    """GET /v1/batches."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
