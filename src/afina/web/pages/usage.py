"""Usage: tokens, requests and money by model, kind, key and day; and what a scenario would cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from starlette.responses import Response

from afina.domain.ledger import UsageSum
from afina.domain.price_profiles import PROFILES, Machine, Scenario, hosted_cost, own_cost
from afina.domain.prices import PICO, dollars
from afina.errors import InvalidRequest
from afina.service import keys, usage
from afina.store.ledger import Grouping
from afina.web.render import page
from afina.web.visit import Visit

DAYS: Final = (7, 30, 90, 365)
GROUPS: Final[tuple[Grouping, ...]] = ("model", "kind", "key", "day")
BY_PROJECT: Final = "project"
"""For keys that manage the organization."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
COST_FIELDS: Final[Mapping[str, str]] = {
    "requests_per_day": "1000",
    "input_tokens": "1000",
    "output_tokens": "250",
    "cached_tokens": "0",
    "training_tokens": "100000",
    "epochs": "3",
    "price": "1500",
    "years": "4",
    "watts": "120",
    "kwh_price": "0.25",
    "tokens_per_second": "1000",
    "training_rate": "500",
}
_WHOLE: Final = tuple(COST_FIELDS)[:6]
_POSITIVE: Final = ("years", "tokens_per_second", "training_rate", "epochs")


def show(visit: Visit) -> Response:
    """Sums of the span, by day and by what was asked for."""
    days, group = _asked(visit)
    start, _ = _span(visit, days)
    found = _sums(visit, start, group)
    by_day = {dict(s.group)["day"]: s for s in _sums(visit, start, "day")}
    return page(
        visit,
        "usage.html",
        {
            "days": days,
            "spans": DAYS,
            "group": group,
            "groups": _groups(visit),
            "rows": [(_name(visit, group, s), s) for s in found],
            "total": _total(found),
            **_chart(by_day, start, days),
            "profiles": list(PROFILES),
            "values": dict(COST_FIELDS),
            "costs": _costs({}),
            "whole": _WHOLE,
            "positive": _POSITIVE,
        },
    )


def export(visit: Visit) -> Response:
    """The same sums as CSV. A cell that a spreadsheet would take for a formula is text there."""
    days, group = _asked(visit)
    start, _ = _span(visit, days)
    out = io.StringIO()
    writer = csv.writer(out)
    head = ("entries", "trained_tokens", "prompt_tokens", "cached_tokens", "completion_tokens")
    writer.writerow([group, *head, "dollars"])
    for found in _sums(visit, start, group):
        numbers = [getattr(found, name) for name in head]
        cell = plain_cell(_name(visit, group, found))
        writer.writerow([cell, *numbers, str(dollars(found.amount_pico))])
    headers = {"content-disposition": f'attachment; filename="afina-usage-{group}.csv"'}
    return Response(out.getvalue(), media_type="text/csv", headers=headers)


def cost(visit: Visit) -> Response:
    """A scenario at a published price list beside a machine of one's own."""
    return page(visit, "parts/costs.html", {"costs": _costs(visit.request.query_params)})


def plain_cell(text: str) -> str:
    """`text` so that no spreadsheet reads a formula into it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _groups(visit: Visit) -> tuple[str, ...]:
    return (*GROUPS, BY_PROJECT) if visit.caller.manages_organization else GROUPS


def _asked(visit: Visit) -> tuple[int, str]:
    asked = visit.request.query_params
    days = asked.get("days", "30")
    group = asked.get("by", "model")
    if not days.isdecimal() or int(days[:6]) not in DAYS:
        raise InvalidRequest("There is no such span.", param="days")
    if group in _groups(visit):
        return int(days), group
    raise InvalidRequest("There is no such grouping.", param="by")


def _span(visit: Visit, days: int) -> tuple[int, int]:
    now = datetime.fromtimestamp(visit.platform.now(), UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight - timedelta(days=days - 1)).timestamp()), int(now.timestamp())


def _sums(visit: Visit, start: int, group: str) -> list[UsageSum]:
    if group == BY_PROJECT:
        return usage.summarize_projects(visit.platform, visit.caller, usage.UsageQuery(start))
    query = usage.UsageQuery(start, None, tuple(known for known in GROUPS if known == group))
    return usage.summarize(visit.platform, visit.caller, query)


def _name(visit: Visit, group: str, found: UsageSum) -> str:
    value = dict(found.group)[group]
    if group == "kind":
        return (
            visit.texts(f"usage.kind_{value}") if visit.texts.has(f"usage.kind_{value}") else value
        )
    if group == "key":
        named = {key.id: key.name for key in keys.list_keys(visit.platform, visit.caller)}
        return named.get(value, value)
    return value


def _total(found: list[UsageSum]) -> dict[str, int]:
    return {
        name: sum(getattr(one, name) for one in found)
        for name in (
            "entries", "trained_tokens", "prompt_tokens", "completion_tokens", "amount_pico",
        )
    }  # fmt: skip


def _chart(by_day: Mapping[str, UsageSum], start: int, days: int) -> dict[str, Any]:
    """Tokens of each day, how high its bar is of 100, and the most of a day."""
    shown: list[dict[str, Any]] = []
    for place in range(days):
        day = datetime.fromtimestamp(start + place * 86_400, UTC).strftime("%Y-%m-%d")
        found = by_day.get(day)
        trained = found.trained_tokens if found else 0
        answered = found.prompt_tokens + found.completion_tokens if found else 0
        shown.append({"day": day, "trained": trained, "answered": answered})
    most = max((bar["trained"] + bar["answered"] for bar in shown), default=0) or 1
    for bar in shown:
        bar["low"] = round(100 * bar["trained"] / most, 2)
        bar["high"] = round(100 * (bar["trained"] + bar["answered"]) / most, 2)
    return {"bars": shown, "most": most, "first": start, "last": start + (days - 1) * 86_400}


def _costs(given: Mapping[str, str]) -> dict[str, Any]:
    values = {name: given.get(name) or usual for name, usual in COST_FIELDS.items()}
    name = given.get("profile") or "gpt-4o-mini-2024-07-18"
    if name not in PROFILES:
        raise InvalidRequest("There is no such price list.", param="profile")
    whole = [_number(field, values[field], whole=True) for field in _WHOLE]
    scenario = Scenario(*(int(value) for value in whole))
    if scenario.cached_tokens > scenario.input_tokens:
        raise InvalidRequest("Cached tokens are part of the input, so not more.")
    machine = Machine(*(_number(field, values[field]) for field in list(values)[6:]))
    hosted = hosted_cost(scenario, PROFILES[name].prices)
    own = own_cost(scenario, machine, hosted)
    pico = {
        "own_day": own.day, "own_month": own.month, "own_training": own.training,
    }  # fmt: skip
    return {
        "hosted": hosted,
        **{field: int(value * PICO) for field, value in pico.items()},
        "busy": own.busy_share,
        "days": own.break_even_days,
    }


def _number(name: str, text: str, *, whole: bool = False) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    positive = name in _POSITIVE
    if not value.is_finite() or not 0 <= value <= 10**12 or (positive and value == 0):
        raise InvalidRequest(f"{name} must be a number that is not negative.", param=name)
    if whole and value != value.to_integral_value():
        raise InvalidRequest(f"{name} must be a whole number.", param=name)
    return value


ROUTES: Final = (
    ("GET", "/usage", show),
    ("GET", "/usage/export", export),
    ("GET", "/usage/cost", cost),
)
