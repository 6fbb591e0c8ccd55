"""Budgets: what a project and its organization may spend in a calendar month.

A hard limit refuses answers and jobs; an alert is noted once a month, in the audit log. Spent is
what stands in the ledger; what jobs under way hold beside it is `service.holds`' to say. A training
is weighed before it starts, by what all of it would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.limits import PICO_A_CENT, SpendAlert, SpendLimit, month_of
from afina.domain.prices import dollars
from afina.errors import InvalidRequest, NotFound, QuotaExceeded
from afina.service import holds
from afina.service.audit import note, require_admin
from afina.service.holds import NOTHING, Held
from afina.service.platform import Platform
from afina.service.projects import project_of
from afina.store import ledger, limits
from afina.store.database import Tx

_OTHERS = ", with ${} held for jobs that came before it"
_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details: "
    "{holder} may spend ${limit:.2f} a month and has spent ${spent:.2f}{held}."
)


@dataclass(frozen=True)
class Budget:
    """A limit, what is spent of it this month, and what jobs under way hold, in picodollars."""

    limit: SpendLimit
    spent_pico: int
    held_pico: int = 0

    @property
    def left_pico(self) -> int:
        return self.limit.cents * PICO_A_CENT - self.spent_pico - self.held_pico


def check_budget(platform: Platform, caller: Caller) -> None:
    """Raises QuotaExceeded once the month's spending of the project or of the organization, with
    what jobs have begun to train, has reached a hard limit."""
    with platform.database.read() as tx:
        held = holds.begun(platform, tx, caller.organization_id)
        found = budgets_of(platform, tx, caller, held)
    for budget in found:
        if budget.left_pico <= 0:
            raise QuotaExceeded(
                _EXCEEDED.format(
                    holder=_holder(budget.limit),
                    limit=budget.limit.cents / 100,
                    spent=dollars(budget.spent_pico),
                    held=_held(budget, " and jobs are training for ${} more"),
                ),
                remedy=f"An admin can raise the limit (POST {_place_of(budget.limit)}).",
            )


def _place_of(limit: SpendLimit) -> str:
    """Where the limit is set: a project's stands beside the organization's."""
    own = limit.holder_id != limit.organization_id
    return f"/v1/organization/{f'projects/{limit.holder_id}/' if own else ''}spend_limit"


@dataclass(frozen=True)
class EpochBudget:
    """How many epochs of a training the hard limits have room for, and why not one more."""

    epochs: int | None
    """None: no limit, or room for all of them."""
    reason: str | None = None


def epochs_within(
    platform: Platform,
    tx: Tx,
    caller: Caller,
    epochs: int,
    price: Callable[[int], int],
    held: Held = NOTHING,
) -> EpochBudget:
    """How many of `epochs` fit beside what others hold, where `price` is what so many of them cost
    in picodollars. A training is in the ledger only when it is over, so all of its epochs count."""
    found = budgets_of(platform, tx, caller, held)
    if not found:
        return EpochBudget(None)
    tightest = min(found, key=lambda budget: budget.left_pico)
    fitting = next((n for n in range(epochs, 0, -1) if price(n) <= tightest.left_pico), 0)
    if fitting == epochs:
        return EpochBudget(None)
    left = dollars(max(0, tightest.left_pico))
    return EpochBudget(
        fitting,
        f"{fitting + 1} of {epochs} epochs would cost ${dollars(price(fitting + 1)):.2f}, and "
        f"${left:.2f} is left of what {_holder(tightest.limit)} may spend this month"
        f"{_held(tightest, _OTHERS)}.",
    )


def check_training_budget(
    platform: Platform, tx: Tx, caller: Caller, cost_pico: int, held: Held = NOTHING
) -> None:
    """Raises QuotaExceeded with the code `exceeded_quota` where a training that costs so much
    would break a hard limit beside what others hold; says its cost and what is left."""
    for budget in budgets_of(platform, tx, caller, held):
        if cost_pico > budget.left_pico:
            left = max(0, budget.left_pico)
            raise QuotaExceeded(
                f"This job would cost ${dollars(cost_pico):.2f}, and ${dollars(left):.2f} is left "
                f"of what {_holder(budget.limit)} may spend this month{_held(budget, _OTHERS)}.",
                code="exceeded_quota",
                remedy="Train on fewer tokens or epochs, or have the limit raised by an admin.",
            )


def budgets_of(platform: Platform, tx: Tx, caller: Caller, held: Held = NOTHING) -> list[Budget]:
    """The hard limits that bind the caller, with what is spent and held of each."""
    found = []
    _, since = month_of(platform.now())
    for holder in (caller.project_id, caller.organization_id):
        limit = limits.spend_limit(tx, holder)
        if limit is not None:
            found.append(Budget(limit, ledger.spent(tx, holder, since), held.of(holder)))
    return found


def get_spend_limit(platform: Platform, caller: Caller, project_id: str | None) -> SpendLimit:
    """The hard limit of a project, or of the organization. Raises NotFound."""
    holder = _checked(platform, caller, project_id)
    with platform.database.read() as tx:
        limit = limits.spend_limit(tx, holder)
    if limit is None:
        raise NotFound("There is no spend limit here.", code="spend_limit_not_found")
    return limit


def is_enforcing(platform: Platform, limit: SpendLimit) -> bool:
    """Whether the limit refuses requests at the moment."""
    with platform.database.read() as tx:
        spent = ledger.spent(tx, limit.holder_id, month_of(platform.now())[1])
        held = holds.begun(platform, tx, limit.organization_id).of(limit.holder_id)
    return spent + held >= limit.cents * PICO_A_CENT


def set_spend_limit(
    platform: Platform, caller: Caller, project_id: str | None, cents: int
) -> SpendLimit:
    """Sets the hard limit of a project, or of the organization."""
    holder = _checked(platform, caller, project_id)
    _check_cents(cents)
    limit = SpendLimit(holder, caller.organization_id, cents, platform.now())
    with platform.database.write() as tx:
        limits.put_spend_limit(tx, limit)
        note(platform, tx, caller, "spend_limit.updated", holder, cents=cents)
    return limit


def remove_spend_limit(platform: Platform, caller: Caller, project_id: str | None) -> None:
    """Takes the hard limit away. Raises NotFound."""
    holder = _checked(platform, caller, project_id)
    with platform.database.write() as tx:
        if not limits.delete_spend_limit(tx, holder):
            raise NotFound("There is no spend limit here.", code="spend_limit_not_found")
        note(platform, tx, caller, "spend_limit.deleted", holder)


def create_alert(
    platform: Platform,
    caller: Caller,
    project_id: str | None,
    cents: int,
    recipients: Sequence[str],
    subject_prefix: str | None = None,
) -> SpendAlert:
    """An alert of a project, or of the organization."""
    holder = _checked(platform, caller, project_id)
    _check_cents(cents)
    alert = SpendAlert(
        id=platform.ids.new(ids.ALERT),
        holder_id=holder,
        organization_id=caller.organization_id,
        cents=cents,
        recipients=tuple(recipients),
        subject_prefix=subject_prefix,
        created_at=platform.now(),
    )
    with platform.database.write() as tx:
        limits.insert_alert(tx, alert, platform.clock.now())
        note(platform, tx, caller, "spend_alert.created", alert.id, cents=cents)
    return alert


def list_alerts(platform: Platform, caller: Caller, project_id: str | None) -> list[SpendAlert]:
    """The alerts of a project, or of the organization, oldest first."""
    holder = _checked(platform, caller, project_id)
    with platform.database.read() as tx:
        return limits.list_alerts(tx, holder)


def get_alert(
    platform: Platform, caller: Caller, project_id: str | None, alert_id: str
) -> SpendAlert:
    """One of them. Raises NotFound."""
    for alert in list_alerts(platform, caller, project_id):
        if alert.id == alert_id:
            return alert
    raise NotFound(f"No such spend alert: {alert_id[:64]}", param="alert_id")


def change_alert(
    platform: Platform,
    caller: Caller,
    alert: SpendAlert,
    cents: int,
    recipients: Sequence[str],
    subject_prefix: str | None,
) -> SpendAlert:
    """Writes the alert anew; it may be raised again this month."""
    require_admin(caller)
    _check_cents(cents)
    changed = replace(
        alert,
        cents=cents,
        recipients=tuple(recipients),
        subject_prefix=subject_prefix,
        raised_month=None,
    )
    with platform.database.write() as tx:
        limits.update_alert(tx, changed)
        note(platform, tx, caller, "spend_alert.updated", alert.id, cents=cents)
    return changed


def remove_alert(platform: Platform, caller: Caller, alert: SpendAlert) -> None:
    """Takes the alert away."""
    require_admin(caller)
    with platform.database.write() as tx:
        limits.delete_alert(tx, alert.id)
        note(platform, tx, caller, "spend_alert.deleted", alert.id)


def raise_alerts(platform: Platform, caller: Caller) -> list[SpendAlert]:
    """Notes the alerts that this month's spending has crossed, each once a month."""
    month, since = month_of(platform.now())
    holders = (caller.project_id, caller.organization_id)
    with platform.database.read() as tx:
        found = [_crossed(tx, holder, month, since) for holder in holders]
    due = [alert for alerts in found for alert in alerts]
    if not due:
        return []
    with platform.database.write() as tx:
        for alert in due:
            limits.update_alert(tx, replace(alert, raised_month=month))
            told = list(alert.recipients)
            kind = "spend_alert.raised"
            note(platform, tx, caller, kind, alert.id, cents=alert.cents, recipients=told)
    return due


def _crossed(tx: Tx, holder: str, month: str, since: int) -> list[SpendAlert]:
    waiting = [alert for alert in limits.list_alerts(tx, holder) if alert.raised_month != month]
    spent = ledger.spent(tx, holder, since) if waiting else 0
    return [alert for alert in waiting if spent >= alert.cents * PICO_A_CENT]


def _checked(platform: Platform, caller: Caller, project_id: str | None) -> str:
    require_admin(caller)
    if project_id is None:
        return caller.organization_id
    with platform.database.read() as tx:
        return project_of(tx, caller, project_id).id


def _check_cents(cents: int) -> None:
    if not 0 <= cents <= 10**11:
        raise InvalidRequest(
            "threshold_amount is in cents, from 0 to a billion dollars.",
            param="threshold_amount",
            code="invalid_value",
        )


def _held(budget: Budget, text: str) -> str:
    return text.format(f"{dollars(budget.held_pico):.2f}") if budget.held_pico else ""


def _holder(limit: SpendLimit) -> str:
    project = limit.holder_id != limit.organization_id
    return f"{'the project' if project else 'the organization'} {limit.holder_id}"
