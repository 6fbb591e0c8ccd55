"""Strict shapes of what clients send about webhooks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from afina.api.requests import After
from afina.domain.webhooks import EVENT_TYPES
from afina.service.refusals import LaxWire, Wire

EventType = Annotated[
    str,
    Field(min_length=1, max_length=64),
    WithJsonSchema({"type": "string", "enum": list(EVENT_TYPES)}),
]
"""The service refuses those that never happen here, by name."""
Types = Annotated[list[EventType], Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Url = Annotated[str, Field(min_length=1, max_length=2048)]


class WebhookCreate(Wire):
    """POST /v1/webhook_endpoints."""

    name: Name
    url: Url
    event_types: Types


class WebhookUpdate(Wire):
    """POST /v1/webhook_endpoints/{id}; what is left out stays."""

    name: Name | None = None
    url: Url | None = None
    event_types: Types | None = None


class WebhookRotate(Wire):
    """POST …/rotate_secret."""

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(Wire):
    """POST …/test."""

    event_type: EventType


class WebhookListQuery(LaxWire):
    """GET /v1/webhook_endpoints."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class DeliveryListQuery(LaxWire):
    """GET /v1/afina/webhook_deliveries; `state=dead` are the dead letters."""

    state: Literal["pending", "delivered", "dead"] | None = None
    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
