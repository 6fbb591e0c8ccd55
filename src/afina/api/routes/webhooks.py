"""/v1/webhook_endpoints and /v1/webhook_event_types, and what became of each delivery."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NotRequired

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response
from typing_extensions import TypedDict

from afina.api.answers import DeletedObject, ListObject, answer, deleted, page
from afina.api.body import no_body_expected, object_of, read_body
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.api.retries import idempotency_of
from afina.api.webhook_requests import (
    DeliveryListQuery,
    WebhookCreate,
    WebhookListQuery,
    WebhookRotate,
    WebhookTest,
    WebhookUpdate,
)
from afina.domain.webhooks import EVENT_TYPES, Delivery, DeliveryState, WebhookEndpoint
from afina.service import webhooks
from afina.service.refusals import parse

router = APIRouter(prefix="/v1", tags=["webhooks"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_ONE = "/webhook_endpoints/{webhook_endpoint_id}"


class WebhookObject(TypedDict):
    """A webhook endpoint; `signing_secret` only where it has just been made."""

    id: str
    object: str
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    signing_secret: NotRequired[str]
    afina: dict[str, Any]


class TestObject(TypedDict):
    """How a receiver answered a test."""

    object: str
    event_type: str
    status_code: int
    success: bool
    webhook_endpoint_id: str


@router.get("/webhook_event_types", summary="List event types", dependencies=[_NO_QUERY])
def list_event_types(call: Caller_) -> Response:  # noqa: ARG001 - a key is needed all the same
    """Those that happen here."""
    return answer({"object": "list", "data": list(EVENT_TYPES)})


@router.post(
    "/webhook_endpoints",
    summary="Make a webhook endpoint",
    responses={200: {"model": WebhookObject}},
    openapi_extra=documented(body=WebhookCreate),
    dependencies=[_NO_QUERY],
)
async def create(call: Caller_) -> Response:
    """The answer holds its `signing_secret`, which is never shown again."""
    raw = await _body(call)
    asked = parse(WebhookCreate, object_of(raw))
    changes = webhooks.EndpointChanges(asked.name, asked.url, asked.event_types)
    again = idempotency_of(call.request, raw, "POST /v1/webhook_endpoints")
    made = await to_thread.run_sync(
        webhooks.create_endpoint, call.platform, call.caller, changes, again
    )
    return answer(_endpoint(made, secret=True))


@router.get(
    "/webhook_endpoints",
    summary="List webhook endpoints",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=WebhookListQuery),
)
def list_endpoints(
    call: Caller_, asked: Annotated[WebhookListQuery, Depends(query(WebhookListQuery))]
) -> Response:
    """The project's endpoints, newest first."""
    found = webhooks.list_endpoints(call.platform, call.caller, asked.after, asked.limit)
    return answer(page(found, _endpoint, ids=True))


@router.get(
    _ONE,
    summary="Retrieve a webhook endpoint",
    responses={200: {"model": WebhookObject}},
    dependencies=[_NO_QUERY],
)
def retrieve(call: Caller_, webhook_endpoint_id: str) -> Response:
    """One endpoint."""
    found = webhooks.get_endpoint(call.platform, call.caller, webhook_endpoint_id)
    return answer(_endpoint(found))


@router.post(
    _ONE,
    summary="Change a webhook endpoint",
    responses={200: {"model": WebhookObject}},
    openapi_extra=documented(body=WebhookUpdate),
    dependencies=[_NO_QUERY],
)
async def update(call: Caller_, webhook_endpoint_id: str) -> Response:
    """Changes what is given; one that was switched off after three days of failures works again."""
    asked = parse(WebhookUpdate, object_of(await _body(call)))
    changes = webhooks.EndpointChanges(asked.name, asked.url, asked.event_types)
    changed = await to_thread.run_sync(
        webhooks.update_endpoint, call.platform, call.caller, webhook_endpoint_id, changes
    )
    return answer(_endpoint(changed))


@router.delete(
    _ONE,
    summary="Delete a webhook endpoint",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def delete(call: Caller_, webhook_endpoint_id: str) -> Response:
    """Nothing more is sent to it."""
    webhooks.delete_endpoint(call.platform, call.caller, webhook_endpoint_id)
    return answer(deleted(webhook_endpoint_id, "webhook_endpoint.deleted"))


@router.post(
    _ONE + "/rotate_secret",
    summary="Make a new signing secret",
    responses={200: {"model": WebhookObject}},
    openapi_extra=documented(body=WebhookRotate),
    dependencies=[_NO_QUERY],
)
async def rotate_secret(call: Caller_, webhook_endpoint_id: str) -> Response:
    """The old one signs for a day more if `keep_old_secret_active_for_24_hours`."""
    raw = await _body(call)
    asked = parse(WebhookRotate, object_of(raw) if raw.strip() else {})
    rotate = partial(webhooks.rotate_secret, keep_old=asked.keep_old_secret_active_for_24_hours)
    rotated = await to_thread.run_sync(rotate, call.platform, call.caller, webhook_endpoint_id)
    return answer(_endpoint(rotated, secret=True))


@router.post(
    _ONE + "/test",
    summary="Send a sample event",
    responses={200: {"model": TestObject}},
    openapi_extra=documented(body=WebhookTest),
    dependencies=[_NO_QUERY],
)
async def send_test(call: Caller_, webhook_endpoint_id: str) -> Response:
    """Sends it now and tells the receiver's status."""
    asked = parse(WebhookTest, object_of(await _body(call)))
    status = await to_thread.run_sync(
        webhooks.send_test, call.platform, call.caller, webhook_endpoint_id, asked.event_type
    )
    shown = TestObject(
        object="webhook_endpoint.test",
        event_type=asked.event_type,
        status_code=status,
        success=True,
        webhook_endpoint_id=webhook_endpoint_id,
    )
    return answer(shown)


@router.get(
    "/afina/webhook_deliveries",
    summary="What became of deliveries",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=DeliveryListQuery),
)
def list_deliveries(
    call: Caller_, asked: Annotated[DeliveryListQuery, Depends(query(DeliveryListQuery))]
) -> Response:
    """Newest first; with `state=dead` those that nobody took within 72 hours."""
    state = None if asked.state is None else DeliveryState(asked.state)
    found = webhooks.list_deliveries(call.platform, call.caller, state, asked.after, asked.limit)
    return answer(page(found, _delivery, ids=True))


@router.post(
    "/afina/webhook_deliveries/{delivery_id}/redeliver",
    summary="Send a delivery once more",
    dependencies=[_NO_QUERY],
)
async def redeliver(call: Caller_, delivery_id: str) -> Response:
    """Under the same `webhook-id`, so that its receiver can tell."""
    no_body_expected(await _body(call))
    found = await to_thread.run_sync(webhooks.redeliver, call.platform, call.caller, delivery_id)
    return answer(_delivery(found))


async def _body(call: Call) -> bytes:
    return await read_body(call.request, call.parts.settings.max_body_bytes)


def _endpoint(endpoint: WebhookEndpoint, *, secret: bool = False) -> WebhookObject:
    shown = WebhookObject(
        id=endpoint.id,
        object="webhook_endpoint",
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        name=endpoint.name,
        url=endpoint.url,
        event_types=list(endpoint.event_types),
        signing_secret_hint=endpoint.hint,
        afina={"failing_since": endpoint.failing_since, "disabled_at": endpoint.disabled_at},
    )
    if secret:
        shown["signing_secret"] = endpoint.secret
    return shown


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "object": "afina.webhook_delivery",
        "webhook_endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "created_at": delivery.created_at,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "status_code": delivery.status_code,
        "last_error": delivery.last_error,
        "done_at": delivery.done_at,
    }
