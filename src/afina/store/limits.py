"""Rows of rate limits, spend limits and spend alerts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from afina.domain.codec import encode
from afina.domain.limits import RateLimit, SpendAlert, SpendLimit
from afina.store.account_tables import RATE_LIMITS, SPEND_ALERTS, SPEND_LIMITS
from afina.store.database import Tx
from afina.store.ordering import next_order


def rate_limits(tx: Tx, project_id: str) -> dict[str, RateLimit]:
    """What was changed for the project, by model."""
    query = select(RATE_LIMITS).where(RATE_LIMITS.c.project_id == project_id)
    names = RateLimit.__dataclass_fields__
    return {
        row.model: RateLimit(**{n: getattr(row, n) for n in names}) for row in tx.execute(query)
    }


def put_rate_limit(tx: Tx, project_id: str, limit: RateLimit) -> None:
    """Writes the project's limits for a model."""
    where = (RATE_LIMITS.c.project_id == project_id, RATE_LIMITS.c.model == limit.model)
    tx.execute(delete(RATE_LIMITS).where(*where))
    tx.execute(insert(RATE_LIMITS).values({**encode(limit), "project_id": project_id}))


def spend_limit(tx: Tx, holder_id: str) -> SpendLimit | None:
    """The hard limit of an organization or a project."""
    query = select(SPEND_LIMITS).where(SPEND_LIMITS.c.holder_id == holder_id)
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    return SpendLimit(**{name: getattr(row, name) for name in SpendLimit.__dataclass_fields__})


def put_spend_limit(tx: Tx, limit: SpendLimit) -> None:
    """Writes the hard limit of its holder."""
    delete_spend_limit(tx, limit.holder_id)
    tx.execute(insert(SPEND_LIMITS).values(encode(limit)))


def delete_spend_limit(tx: Tx, holder_id: str) -> bool:
    """Takes the hard limit away; whether there was one."""
    where = SPEND_LIMITS.c.holder_id == holder_id
    return bool(tx.execute(delete(SPEND_LIMITS).where(where)).rowcount)


def insert_alert(tx: Tx, alert: SpendAlert, now: float) -> None:
    """Adds an alert."""
    order = next_order(tx, SPEND_ALERTS, now)
    tx.execute(insert(SPEND_ALERTS).values({**encode(alert), "order_key": order}))


def list_alerts(tx: Tx, holder_id: str) -> list[SpendAlert]:
    """The holder's alerts, oldest first."""
    query = select(SPEND_ALERTS).where(SPEND_ALERTS.c.holder_id == holder_id)
    return [_alert(row) for row in tx.execute(query.order_by(SPEND_ALERTS.c.order_key))]


def update_alert(tx: Tx, alert: SpendAlert) -> None:
    """Writes the alert anew."""
    values = {name: value for name, value in encode(alert).items() if name != "id"}
    tx.execute(update(SPEND_ALERTS).where(SPEND_ALERTS.c.id == alert.id).values(values))


def delete_alert(tx: Tx, alert_id: str) -> None:
    """Takes the alert away."""
    tx.execute(delete(SPEND_ALERTS).where(SPEND_ALERTS.c.id == alert_id))


def _alert(row: Row[Any]) -> SpendAlert:
    values = {name: getattr(row, name) for name in SpendAlert.__dataclass_fields__}
    return SpendAlert(**{**values, "recipients": tuple(values["recipients"])})
