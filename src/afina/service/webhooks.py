"""Webhooks: endpoints that a project names, and what they are told.

`emit` writes deliveries in the transaction of what happened, so that nothing is told that did not
happen and nothing that happened is forgotten; `carry_out` is the worker's attempt at one of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.ids import DELIVERY, JOB, WEBHOOK, WEBHOOK_EVENT
from afina.domain.pages import Page
from afina.domain.webhooks import (
    EVENT_TYPES,
    GIVE_UP_S,
    OLD_SECRET_S,
    SECRET_PREFIX,
    Delivery,
    DeliveryState,
    WebhookEndpoint,
    pause_s,
    signed_headers,
)
from afina.errors import AfinaError, Conflict, InvalidRequest, NotFound
from afina.service.files import check_limit
from afina.service.once import Idempotency, once
from afina.service.outbound import Reach, check_url, post
from afina.service.platform import Platform
from afina.store import webhooks
from afina.store.database import Tx

MAX_LIST: Final = 100
MAX_ENDPOINTS: Final = 50
LEASE_S: Final = 120.0
_DELIVERED_KEPT_S: Final = 7 * 24 * 3600
_DEAD_KEPT_S: Final = 30 * 24 * 3600
_GONE: Final = 410


@dataclass(frozen=True)
class EndpointChanges:
    """What a client says of an endpoint; None leaves a field as it is."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None


def create_endpoint(
    platform: Platform,
    caller: Caller,
    asked: EndpointChanges,
    idempotency: Idempotency | None = None,
) -> WebhookEndpoint:
    """Makes an endpoint with a new signing secret. Raises InvalidRequest."""
    _check(platform, asked)
    platform.settings.check_online("Webhooks cannot be sent", "url")
    now = platform.now()
    endpoint = WebhookEndpoint(
        id=platform.ids.new(WEBHOOK),
        project_id=caller.project_id,
        name=asked.name or "",
        url=asked.url or "",
        event_types=tuple(sorted(set(asked.event_types or ()))),
        secret=_new_secret(platform),
        created_at=now,
        updated_at=now,
    )
    with platform.database.write() as tx:

        def create() -> WebhookEndpoint:
            if len(webhooks.list_endpoints(tx, caller.project_id, None, MAX_LIST).data) >= (
                MAX_ENDPOINTS
            ):
                raise InvalidRequest(
                    f"The project has {MAX_ENDPOINTS} webhook endpoints already.",
                    code="too_many_webhook_endpoints",
                    remedy="Delete one that is no longer needed.",
                )
            webhooks.insert_endpoint(tx, endpoint, caller, platform.clock.now())
            return endpoint

        return once(tx, caller, idempotency, now, (WebhookEndpoint, create))


def get_endpoint(platform: Platform, caller: Caller, id: str) -> WebhookEndpoint:
    """Raises NotFound."""
    with platform.database.read() as tx:
        return _find(tx, caller, id)


def list_endpoints(
    platform: Platform, caller: Caller, after: str | None = None, limit: int = 20
) -> Page[WebhookEndpoint]:
    """Newest first."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        return webhooks.list_endpoints(tx, caller.project_id, after, limit)


def update_endpoint(
    platform: Platform, caller: Caller, id: str, asked: EndpointChanges
) -> WebhookEndpoint:
    """Changes what is given; an endpoint that was switched off works again. Raises NotFound,
    InvalidRequest."""
    _check(platform, asked)
    with platform.database.write() as tx:
        before = _find(tx, caller, id)
        types = asked.event_types
        after = replace(
            before,
            name=before.name if asked.name is None else asked.name,
            url=before.url if asked.url is None else asked.url,
            event_types=before.event_types if types is None else tuple(sorted(set(types))),
            failing_since=None,
            disabled_at=None,
        )
        if after != before:
            after = replace(after, updated_at=platform.now())
            names = ("name", "url", "event_types", "failing_since", "disabled_at", "updated_at")
            webhooks.update_endpoint(tx, id, **{name: getattr(after, name) for name in names})
    return after


def delete_endpoint(platform: Platform, caller: Caller, id: str) -> None:
    """Ends an endpoint with all that still waited for it. Raises NotFound."""
    with platform.database.write() as tx:
        _find(tx, caller, id)
        webhooks.delete_endpoint(tx, id)


def rotate_secret(
    platform: Platform, caller: Caller, id: str, *, keep_old: bool
) -> WebhookEndpoint:
    """A new signing secret; the old one signs for a day more if `keep_old`. Raises NotFound."""
    now = platform.now()
    with platform.database.write() as tx:
        before = _find(tx, caller, id)
        after = replace(
            before,
            secret=_new_secret(platform),
            old_secret=before.secret if keep_old else None,
            old_secret_until=now + OLD_SECRET_S if keep_old else None,
            updated_at=now,
        )
        names = ("secret", "old_secret", "old_secret_until", "updated_at")
        webhooks.update_endpoint(tx, id, **{name: getattr(after, name) for name in names})
    return after


def send_test(platform: Platform, caller: Caller, id: str, event_type: str) -> int:
    """Sends a sample event now, once; the receiver's status. Raises NotFound, InvalidRequest where
    the receiver cannot be asked."""
    check_types([event_type], "event_type")
    platform.settings.check_online("Webhooks cannot be sent", "url")
    endpoint = get_endpoint(platform, caller, id)
    data_id = platform.ids.new("batch_" if event_type.startswith("batch.") else JOB)
    body = _body(platform, platform.ids.new(WEBHOOK_EVENT), event_type, data_id)
    sample = Delivery(platform.ids.new(DELIVERY), id, "", event_type, body, platform.now())
    try:
        return _send(platform, endpoint, sample)
    except AfinaError as error:
        raise InvalidRequest(
            f"The test was not delivered. {error.message}", param="url", code=error.code
        ) from None


def emit(platform: Platform, tx: Tx, project_id: str, event_type: str, data_id: str) -> int:
    """Puts the event into the outbox of every endpoint that wants it, in the transaction in which
    it happens; says how many those are."""
    endpoints = webhooks.endpoints_for(tx, project_id, event_type)
    if not endpoints:
        return 0
    event_id = platform.ids.new(WEBHOOK_EVENT)
    body = _body(platform, event_id, event_type, data_id)
    new = [
        Delivery(
            id=platform.ids.new(DELIVERY),
            endpoint_id=endpoint.id,
            event_id=event_id,
            event_type=event_type,
            body=body,
            created_at=platform.now(),
            available_at=platform.clock.now(),
        )
        for endpoint in endpoints
    ]
    webhooks.put_deliveries(tx, new, platform.clock.now())
    return len(new)


def claim(platform: Platform, limit: int) -> list[Delivery]:
    """Deliveries that are due; they come back after `LEASE_S` if their worker dies. With the
    setting `offline` they wait."""
    if platform.settings.offline:
        return []
    now = platform.clock.now()
    with platform.database.read() as tx:
        if not webhooks.any_due(tx, now):
            return []
    with platform.database.write() as tx:
        return webhooks.claim_deliveries(tx, now, LEASE_S, limit)


def carry_out(platform: Platform, delivery: Delivery) -> bool:
    """One attempt; whether the receiver took it. What fails comes again with growing pauses, for
    72 hours; then it is a dead letter."""
    with platform.database.read() as tx:
        endpoint = webhooks.get_endpoint(tx, delivery.endpoint_id)
    if endpoint is None:
        return False
    status: int | None = None
    try:
        status = _send(platform, endpoint, delivery)
        reason = None if 200 <= status < 300 else f"The receiver answered {status}."
    except AfinaError as error:
        reason = error.message
    with platform.database.write() as tx:
        if reason is None:
            _note_success(platform, tx, endpoint, delivery, status)
        else:
            _note_failure(platform, tx, endpoint, delivery, (status, reason))
    return reason is None


def list_deliveries(
    platform: Platform,
    caller: Caller,
    state: DeliveryState | None = None,
    after: str | None = None,
    limit: int = 20,
) -> Page[Delivery]:
    """The project's deliveries, newest first; `dead` ones are the dead letters."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        return webhooks.list_deliveries(tx, caller.project_id, state, after, limit)


def redeliver(platform: Platform, caller: Caller, id: str) -> Delivery:
    """Sends a delivery that is over once more, under the same webhook-id. Raises NotFound,
    Conflict."""
    with platform.database.write() as tx:
        found = webhooks.get_delivery(tx, id, caller.project_id)
        if found is None:
            raise NotFound(f"No such webhook delivery: {id[:100]}", param="id")
        endpoint = webhooks.get_endpoint(tx, found.endpoint_id)
        if endpoint is not None and endpoint.disabled_at is not None:
            raise Conflict(
                f"The endpoint {endpoint.id} is switched off.",
                remedy="Update it first (POST /v1/webhook_endpoints/{id}); that switches it on.",
            )
        fresh = replace(
            found,
            state=DeliveryState.PENDING,
            available_at=platform.clock.now(),
            attempts=0,
            created_at=platform.now(),
            done_at=None,
        )
        names = ("state", "available_at", "attempts", "created_at", "done_at")
        webhooks.record_delivery(tx, id, **{name: getattr(fresh, name) for name in names})
    return fresh


def sweep_deliveries(platform: Platform) -> int:
    """Removes what was delivered a week ago or dead for a month."""
    now = platform.now()
    with platform.database.write() as tx:
        return webhooks.drop_old(tx, now - _DELIVERED_KEPT_S, now - _DEAD_KEPT_S)


def check_types(event_types: Sequence[str], param: str = "event_types") -> None:
    """Raises InvalidRequest for an event that does not happen here."""
    for name in event_types:
        if name not in EVENT_TYPES:
            raise InvalidRequest(
                f"The event type {name[:64]!r} does not happen here. "
                f"Those that do: {', '.join(EVENT_TYPES)}.",
                param=param,
                code="unsupported_value",
            )


def _note_success(
    platform: Platform, tx: Tx, endpoint: WebhookEndpoint, delivery: Delivery, status: int | None
) -> None:
    webhooks.record_delivery(
        tx,
        delivery.id,
        state=DeliveryState.DELIVERED,
        status_code=status,
        last_error=None,
        done_at=platform.now(),
    )
    if endpoint.failing_since is not None:
        webhooks.update_endpoint(tx, endpoint.id, failing_since=None)


def _note_failure(
    platform: Platform,
    tx: Tx,
    endpoint: WebhookEndpoint,
    delivery: Delivery,
    how: tuple[int | None, str],
) -> None:
    now = platform.now()
    status, reason = how
    dead = status == _GONE or now - delivery.created_at >= GIVE_UP_S
    chance = platform.ids.seed() / 2**31
    webhooks.record_delivery(
        tx,
        delivery.id,
        state=DeliveryState.DEAD if dead else DeliveryState.PENDING,
        available_at=platform.clock.now() + pause_s(delivery.attempts, chance),
        status_code=status,
        last_error=reason,
        done_at=now if dead else None,
    )
    since = endpoint.failing_since if endpoint.failing_since is not None else now
    if status == _GONE or now - since >= GIVE_UP_S:
        webhooks.update_endpoint(tx, endpoint.id, failing_since=since, disabled_at=now)
        webhooks.bury_pending(tx, endpoint.id, "The endpoint was switched off.", now)
    elif endpoint.failing_since is None:
        webhooks.update_endpoint(tx, endpoint.id, failing_since=since)


def _send(platform: Platform, endpoint: WebhookEndpoint, delivery: Delivery) -> int:
    now, raw = platform.now(), delivery.body.encode()
    headers = {"content-type": "application/json", "user-agent": "afina-webhooks/1"}
    headers |= signed_headers(delivery.id, now, raw, endpoint.secrets(now))
    return post(endpoint.url, headers, raw, _reach(platform))


def _reach(platform: Platform) -> Reach:
    allowed = platform.settings.webhooks
    return Reach(allow_private=allowed.allow_private, timeout_s=allowed.timeout_s)


def _body(platform: Platform, event_id: str, event_type: str, data_id: str) -> str:
    event = {
        "id": event_id,
        "object": "event",
        "created_at": platform.now(),
        "type": event_type,
        "data": {"id": data_id},
    }
    return json.dumps(event, separators=(",", ":"))


def _new_secret(platform: Platform) -> str:
    """`whsec_` and 32 random bytes in base64."""
    text = platform.ids.new("", 43)
    return SECRET_PREFIX + base64.b64encode(text.encode()).decode()


def _check(platform: Platform, asked: EndpointChanges) -> None:
    if asked.name is not None and not (1 <= len(asked.name) <= 200 and asked.name.isprintable()):
        raise InvalidRequest(
            "A webhook's name has 1 to 200 printable characters.",
            param="name",
            code="invalid_value",
        )
    if asked.url is not None:
        check_url(asked.url, _reach(platform))
    if asked.event_types is not None:
        check_types(asked.event_types)


def _find(tx: Tx, caller: Caller, id: str) -> WebhookEndpoint:
    endpoint = webhooks.get_endpoint(tx, id, caller.project_id)
    if endpoint is None:
        raise NotFound(f"No such webhook endpoint: {id[:100]}", param="webhook_endpoint_id")
    return endpoint
