"""Rows of webhook endpoints and of deliveries, the outbox of what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.pages import Page
from afina.domain.webhooks import Delivery, DeliveryState, WebhookEndpoint
from afina.store.database import Tx
from afina.store.ordering import next_order, read_page
from afina.store.wire_tables import WEBHOOK_DELIVERIES, WEBHOOK_ENDPOINTS

_E, _D = WEBHOOK_ENDPOINTS.c, WEBHOOK_DELIVERIES.c


def insert_endpoint(tx: Tx, endpoint: WebhookEndpoint, caller: Caller, now: float) -> None:
    """Adds an endpoint of the caller's."""
    values: dict[str, Any] = encode(endpoint)
    values |= {
        "organization_id": caller.organization_id,
        "order_key": next_order(tx, WEBHOOK_ENDPOINTS, now),
    }
    tx.execute(insert(WEBHOOK_ENDPOINTS).values(values))


def get_endpoint(tx: Tx, id: str, project_id: str | None = None) -> WebhookEndpoint | None:
    """The endpoint, if it belongs to the project (any project where None is given)."""
    query = select(WEBHOOK_ENDPOINTS).where(_E.id == id)
    if project_id is not None:
        query = query.where(_E.project_id == project_id)
    row = tx.execute(query).one_or_none()
    return None if row is None else _endpoint(row)


def list_endpoints(tx: Tx, project_id: str, after: str | None, limit: int) -> Page[WebhookEndpoint]:
    """Newest first."""
    where = _E.project_id == project_id
    rows, more = read_page(tx, WEBHOOK_ENDPOINTS, where, after=after, limit=limit)
    return Page(tuple(_endpoint(row) for row in rows), more)


def endpoints_for(tx: Tx, project_id: str, event_type: str) -> list[WebhookEndpoint]:
    """The project's endpoints that want that event and are not switched off."""
    query = select(WEBHOOK_ENDPOINTS).where(_E.project_id == project_id, _E.disabled_at.is_(None))
    found = [_endpoint(row) for row in tx.execute(query.order_by(_E.order_key))]
    return [endpoint for endpoint in found if event_type in endpoint.event_types]


def update_endpoint(tx: Tx, id: str, **changes: Any) -> None:
    """Changes columns of an endpoint."""
    values = {name: encode(value) for name, value in changes.items()}
    tx.execute(update(WEBHOOK_ENDPOINTS).where(_E.id == id).values(**values))


def delete_endpoint(tx: Tx, id: str) -> None:
    """Removes the endpoint with its deliveries."""
    tx.execute(delete(WEBHOOK_ENDPOINTS).where(_E.id == id))


def put_deliveries(tx: Tx, deliveries: Sequence[Delivery], now: float) -> None:
    """Adds deliveries in the transaction of what they tell of."""
    if not deliveries:
        return
    order = next_order(tx, WEBHOOK_DELIVERIES, now)
    rows = [encode(delivery) | {"order_key": order + i} for i, delivery in enumerate(deliveries)]
    tx.execute(insert(WEBHOOK_DELIVERIES), rows)


def claim_deliveries(tx: Tx, now: float, lease_s: float, limit: int) -> list[Delivery]:
    """Deliveries that are due, oldest first; they come back after `lease_s` unless recorded."""
    due = (
        select(_D.id)
        .join(WEBHOOK_ENDPOINTS, _E.id == _D.endpoint_id)
        .where(
            _D.state == DeliveryState.PENDING.value,
            _D.available_at <= now,
            _E.disabled_at.is_(None),
        )
        .order_by(_D.available_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=WEBHOOK_DELIVERIES)
    )
    taken = tx.execute(
        update(WEBHOOK_DELIVERIES)
        .where(_D.id.in_(due))
        .values(available_at=now + lease_s, attempts=_D.attempts + 1)
        .returning(WEBHOOK_DELIVERIES)
    )
    return [_delivery(row) for row in sorted(taken, key=lambda row: row.order_key)]


def any_due(tx: Tx, now: float) -> bool:
    """A cheap look before a claim."""
    query = select(_D.id).where(_D.state == DeliveryState.PENDING.value, _D.available_at <= now)
    return tx.execute(query.limit(1)).one_or_none() is not None


def record_delivery(tx: Tx, id: str, **changes: Any) -> None:
    """Writes how an attempt ended."""
    values = {name: encode(value) for name, value in changes.items()}
    tx.execute(update(WEBHOOK_DELIVERIES).where(_D.id == id).values(**values))


def bury_pending(tx: Tx, endpoint_id: str, reason: str, now: int) -> None:
    """All that still waits for an endpoint that is switched off becomes dead letters."""
    tx.execute(
        update(WEBHOOK_DELIVERIES)
        .where(_D.endpoint_id == endpoint_id, _D.state == DeliveryState.PENDING.value)
        .values(state=DeliveryState.DEAD.value, last_error=reason, done_at=now)
    )


def get_delivery(tx: Tx, id: str, project_id: str) -> Delivery | None:
    """The delivery, if its endpoint belongs to the project."""
    query = (
        select(WEBHOOK_DELIVERIES)
        .join(WEBHOOK_ENDPOINTS, _E.id == _D.endpoint_id)
        .where(_D.id == id, _E.project_id == project_id)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else _delivery(row)


def list_deliveries(
    tx: Tx, project_id: str, state: DeliveryState | None, after: str | None, limit: int
) -> Page[Delivery]:
    """The project's deliveries, newest first."""
    own = select(_E.id).where(_E.project_id == project_id)
    where: ColumnElement[bool] = _D.endpoint_id.in_(own)
    if state is not None:
        where = where & (_D.state == state.value)
    rows, more = read_page(tx, WEBHOOK_DELIVERIES, where, after=after, limit=limit)
    return Page(tuple(_delivery(row) for row in rows), more)


def drop_old(tx: Tx, delivered_before: int, dead_before: int) -> int:
    """Removes deliveries that are over for long; says how many that were."""
    delivered = (_D.state == DeliveryState.DELIVERED.value) & (_D.done_at < delivered_before)
    dead = (_D.state == DeliveryState.DEAD.value) & (_D.done_at < dead_before)
    return tx.execute(delete(WEBHOOK_DELIVERIES).where(delivered | dead)).rowcount


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    values = {name: getattr(row, name) for name in WebhookEndpoint.__dataclass_fields__}
    return WebhookEndpoint(**{**values, "event_types": tuple(row.event_types)})


def _delivery(row: Row[Any]) -> Delivery:
    values = {name: getattr(row, name) for name in Delivery.__dataclass_fields__}
    return Delivery(**{**values, "state": DeliveryState(row.state)})
