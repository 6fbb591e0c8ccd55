"""/v1/organization: spend limits and spend alerts, of the organization and of its projects."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After, NoQuery
from afina.api.routes.organization.shared import ListQuery, body_of, short_page
from afina.domain.limits import SpendAlert, SpendLimit
from afina.service import budgets
from afina.service.refusals import Wire

router = APIRouter(prefix="/v1/organization", tags=["organization"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_PROJECT: Final = "/projects/{project_id}"
Cents = Annotated[int, Field(ge=0, le=10**11)]


class SpendLimitUpdate(Wire):
    """POST …/spend_limit; `threshold_amount` is in cents."""

    currency: Literal["USD"]
    interval: Literal["month"]
    threshold_amount: Cents


class NotificationChannel(Wire):
    """Who is told; nothing is mailed from this machine, a webhook or the audit log tells."""

    type: Literal["email"]
    recipients: Annotated[
        list[Annotated[str, Field(max_length=320)]], Field(min_length=1, max_length=50)
    ]
    subject_prefix: Annotated[str, Field(max_length=200)] | None = None


class SpendAlertCreate(SpendLimitUpdate):
    """POST …/spend_alerts."""

    notification_channel: NotificationChannel


class AlertListQuery(ListQuery):
    """GET …/spend_alerts."""

    before: After | None = None
    order: Literal["asc", "desc"] = "asc"


SHAPES: Final[tuple[type[BaseModel], ...]] = (SpendLimitUpdate, SpendAlertCreate, AlertListQuery)
_LIMIT_BODY: Final = documented(body=SpendLimitUpdate)
_ALERT_BODY: Final = documented(body=SpendAlertCreate)
_ALERT_LIST: Final = documented(query=AlertListQuery)
Asked = Annotated[AlertListQuery, Depends(query(AlertListQuery))]


@router.get("/spend_limit", summary="The organization's spend limit", dependencies=[_NO_QUERY])
def read_limit(call: Caller_) -> Response:
    """404 where there is none."""
    return _read_limit(call, None)


@router.post(
    "/spend_limit",
    summary="Limit the organization's spending",
    openapi_extra=_LIMIT_BODY,
    dependencies=[_NO_QUERY],
)
async def write_limit(call: Caller_) -> Response:
    """Answers and jobs are refused once the month's spending reaches it."""
    return await _write_limit(call, None)


@router.delete("/spend_limit", summary="Lift the spend limit", dependencies=[_NO_QUERY])
def delete_limit(call: Caller_) -> Response:
    """404 where there is none."""
    return _delete_limit(call, None)


@router.get(_PROJECT + "/spend_limit", summary="A project's spend limit", dependencies=[_NO_QUERY])
def read_project_limit(call: Caller_, project_id: str) -> Response:
    """404 where there is none."""
    return _read_limit(call, project_id)


@router.post(
    _PROJECT + "/spend_limit",
    summary="Limit a project's spending",
    openapi_extra=_LIMIT_BODY,
    dependencies=[_NO_QUERY],
)
async def write_project_limit(call: Caller_, project_id: str) -> Response:
    """Answers and jobs of the project are refused once the month's spending reaches it."""
    return await _write_limit(call, project_id)


@router.delete(
    _PROJECT + "/spend_limit", summary="Lift a project's spend limit", dependencies=[_NO_QUERY]
)
def delete_project_limit(call: Caller_, project_id: str) -> Response:
    """404 where there is none."""
    return _delete_limit(call, project_id)


@router.post(
    "/spend_alerts",
    summary="Make a spend alert",
    openapi_extra=_ALERT_BODY,
    dependencies=[_NO_QUERY],
)
async def create_alert(call: Caller_) -> Response:
    """Noted once a month, when the spending crosses it."""
    return await _create_alert(call, None)


@router.get("/spend_alerts", summary="List spend alerts", openapi_extra=_ALERT_LIST)
def list_alerts(call: Caller_, asked: Asked) -> Response:
    """Oldest first."""
    return _list_alerts(call, None, asked)


@router.get("/spend_alerts/{alert_id}", summary="A spend alert", dependencies=[_NO_QUERY])
def read_alert(call: Caller_, alert_id: str) -> Response:
    """One alert."""
    return answer(_alert(budgets.get_alert(call.platform, call.caller, None, alert_id)))


@router.post(
    "/spend_alerts/{alert_id}",
    summary="Change a spend alert",
    openapi_extra=_ALERT_BODY,
    dependencies=[_NO_QUERY],
)
async def update_alert(call: Caller_, alert_id: str) -> Response:
    """It may be raised again this month."""
    return await _update_alert(call, None, alert_id)


@router.delete("/spend_alerts/{alert_id}", summary="Remove a spend alert", dependencies=[_NO_QUERY])
def delete_alert(call: Caller_, alert_id: str) -> Response:
    """Nothing is noted any more."""
    return _delete_alert(call, None, alert_id)


@router.post(
    _PROJECT + "/spend_alerts",
    summary="Make a project's spend alert",
    openapi_extra=_ALERT_BODY,
    dependencies=[_NO_QUERY],
)
async def create_project_alert(call: Caller_, project_id: str) -> Response:
    """Noted once a month, when the project's spending crosses it."""
    return await _create_alert(call, project_id)


@router.get(
    _PROJECT + "/spend_alerts", summary="List a project's spend alerts", openapi_extra=_ALERT_LIST
)
def list_project_alerts(call: Caller_, project_id: str, asked: Asked) -> Response:
    """Oldest first."""
    return _list_alerts(call, project_id, asked)


@router.get(
    _PROJECT + "/spend_alerts/{alert_id}",
    summary="A project's spend alert",
    dependencies=[_NO_QUERY],
)
def read_project_alert(call: Caller_, project_id: str, alert_id: str) -> Response:
    """One alert."""
    return answer(_alert(budgets.get_alert(call.platform, call.caller, project_id, alert_id)))


@router.post(
    _PROJECT + "/spend_alerts/{alert_id}",
    summary="Change a project's spend alert",
    openapi_extra=_ALERT_BODY,
    dependencies=[_NO_QUERY],
)
async def update_project_alert(call: Caller_, project_id: str, alert_id: str) -> Response:
    """It may be raised again this month."""
    return await _update_alert(call, project_id, alert_id)


@router.delete(
    _PROJECT + "/spend_alerts/{alert_id}",
    summary="Remove a project's spend alert",
    dependencies=[_NO_QUERY],
)
def delete_project_alert(call: Caller_, project_id: str, alert_id: str) -> Response:
    """Nothing is noted any more."""
    return _delete_alert(call, project_id, alert_id)


def _read_limit(call: Call, project_id: str | None) -> Response:
    return _limit(call, budgets.get_spend_limit(call.platform, call.caller, project_id))


async def _write_limit(call: Call, project_id: str | None) -> Response:
    asked = await body_of(call, SpendLimitUpdate)
    limit = await to_thread.run_sync(
        budgets.set_spend_limit, call.platform, call.caller, project_id, asked.threshold_amount
    )
    return await to_thread.run_sync(_limit, call, limit)


def _delete_limit(call: Call, project_id: str | None) -> Response:
    budgets.remove_spend_limit(call.platform, call.caller, project_id)
    scope = "organization" if project_id is None else "project"
    return answer({"object": f"{scope}.spend_limit.deleted", "deleted": True})


async def _create_alert(call: Call, project_id: str | None) -> Response:
    asked = await body_of(call, SpendAlertCreate)
    channel = asked.notification_channel
    made = await to_thread.run_sync(
        budgets.create_alert,
        call.platform,
        call.caller,
        project_id,
        asked.threshold_amount,
        channel.recipients,
        channel.subject_prefix,
    )
    return answer(_alert(made))


def _list_alerts(call: Call, project_id: str | None, asked: AlertListQuery) -> Response:
    found = budgets.list_alerts(call.platform, call.caller, project_id)
    shown = found if asked.order == "asc" else found[::-1]
    return short_page(shown, _alert, asked, before=asked.before)


async def _update_alert(call: Call, project_id: str | None, alert_id: str) -> Response:
    asked = await body_of(call, SpendAlertCreate)
    channel = asked.notification_channel

    def change() -> SpendAlert:
        found = budgets.get_alert(call.platform, call.caller, project_id, alert_id)
        return budgets.change_alert(
            call.platform,
            call.caller,
            found,
            asked.threshold_amount,
            channel.recipients,
            channel.subject_prefix,
        )

    return answer(_alert(await to_thread.run_sync(change)))


def _delete_alert(call: Call, project_id: str | None, alert_id: str) -> Response:
    found = budgets.get_alert(call.platform, call.caller, project_id, alert_id)
    budgets.remove_alert(call.platform, call.caller, found)
    kind = f"{_scope(found.holder_id, found.organization_id)}.spend_alert.deleted"
    return answer({"id": alert_id, "object": kind, "deleted": True})


def _limit(call: Call, limit: SpendLimit) -> Response:
    enforcing = budgets.is_enforcing(call.platform, limit)
    return answer(
        {
            "object": f"{_scope(limit.holder_id, limit.organization_id)}.spend_limit",
            "currency": "USD",
            "interval": "month",
            "threshold_amount": limit.cents,
            "enforcement": {"status": "enforcing" if enforcing else "inactive"},
        }
    )


def _alert(alert: SpendAlert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "object": f"{_scope(alert.holder_id, alert.organization_id)}.spend_alert",
        "currency": "USD",
        "interval": "month",
        "threshold_amount": alert.cents,
        "notification_channel": {
            "type": "email",
            "recipients": list(alert.recipients),
            "subject_prefix": alert.subject_prefix,
        },
    }


def _scope(holder_id: str, organization_id: str) -> str:
    return "organization" if holder_id == organization_id else "project"
