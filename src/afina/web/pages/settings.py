"""Settings: language and theme, keys, webhooks, projects, prices and what the disk holds."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from anyio import to_thread
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from afina.domain.webhooks import EVENT_TYPES
from afina.errors import AfinaError, InvalidRequest, NotFound
from afina.service import bases, budgets, keys, limits, people, projects, webhooks
from afina.service.webhooks import EndpointChanges
from afina.web.render import page
from afina.web.visit import Visit, form_of

LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "requests_per_day")
_LIVES: Final = {"": None, "30": 30 * 86_400, "90": 90 * 86_400, "365": 365 * 86_400}


def show(visit: Visit) -> Response:
    """The page."""
    return page(visit, "settings.html", _shown(visit))


async def create_key(visit: Visit) -> Response:
    """A new key; its secret is on the answer's page and nowhere else."""
    form = await form_of(visit)
    name = str(form.get("name") or "").strip()
    life = str(form.get("life") or "")
    if life not in _LIVES:
        raise InvalidRequest("There is no such span.", param="life")

    def make() -> Response:
        _, secret = keys.create_key(visit.platform, visit.caller, name, _LIVES[life])
        return page(visit, "settings.html", _shown(visit) | {"secret": secret, "secret_of": name})

    return await _tried(visit, "keys", form, make)


async def revoke_key(visit: Visit) -> Response:
    """From now on the key opens nothing, this dashboard neither."""
    await form_of(visit)
    key_id = visit.request.path_params["id"]
    await to_thread.run_sync(keys.revoke_key, visit.platform, visit.caller, key_id)
    return RedirectResponse("/settings#keys", 303)


async def create_webhook(visit: Visit) -> Response:
    """A new endpoint; its signing secret is shown once."""
    form = await form_of(visit)
    asked = EndpointChanges(
        name=str(form.get("name") or "").strip(),
        url=str(form.get("url") or "").strip(),
        event_types=[str(kind) for kind in form.getlist("event")],
    )

    def make() -> Response:
        endpoint = webhooks.create_endpoint(visit.platform, visit.caller, asked)
        told = {"secret": endpoint.secret, "secret_of": endpoint.name}
        return page(visit, "settings.html", _shown(visit) | told)

    return await _tried(visit, "webhooks", form, make)


async def delete_webhook(visit: Visit) -> Response:
    """Removes an endpoint."""
    await form_of(visit)
    id_ = visit.request.path_params["id"]
    await to_thread.run_sync(webhooks.delete_endpoint, visit.platform, visit.caller, id_)
    return RedirectResponse("/settings#webhooks", 303)


async def test_webhook(visit: Visit) -> Response:
    """Sends a test event now."""
    await form_of(visit)
    id_ = visit.request.path_params["id"]
    kind = "fine_tuning.job.succeeded"
    await to_thread.run_sync(webhooks.send_test, visit.platform, visit.caller, id_, kind)
    return RedirectResponse("/settings?sent=1#webhooks", 303)


async def create_project(visit: Visit) -> Response:
    """A new project of the organization."""
    form = await form_of(visit)
    name = str(form.get("name") or "").strip()

    def make() -> None:
        projects.create_project(visit.platform, visit.caller, name)

    return await _tried(visit, "projects", form, make)


async def add_person(visit: Visit) -> Response:
    """A new user of the organization."""
    form = await form_of(visit)
    email, role = str(form.get("email") or "").strip(), str(form.get("role") or "")

    def add() -> None:
        people.add_user(visit.platform, visit.caller, email, role)

    return await _tried(visit, "people", form, add)


async def remove_person(visit: Visit) -> Response:
    """Takes a user out; the user's keys open nothing any more."""
    await form_of(visit)
    id_ = visit.request.path_params["id"]
    await to_thread.run_sync(people.remove_user, visit.platform, visit.caller, id_)
    return RedirectResponse("/settings#people", 303)


async def set_limit(visit: Visit) -> Response:
    """The project's rate limits for one model; an empty field takes its limit away."""
    form = await form_of(visit)
    name = limits.PREFIX + str(form.get("model") or "")
    caller = visit.caller

    def change() -> None:
        changes = {field: _whole(form, field) for field in LIMITS}
        limits.change_rate_limit(visit.platform, caller, caller.project_id, name, changes)

    return await _tried(visit, "limits", form, change)


async def set_budget(visit: Visit) -> Response:
    """What the project may spend in a month; an empty field takes the limit away."""
    form = await form_of(visit)
    text = str(form.get("dollars") or "").strip()
    caller = visit.caller

    def change() -> None:
        if text:
            budgets.set_spend_limit(visit.platform, caller, caller.project_id, _cents(text))
            return
        with contextlib.suppress(NotFound):  # there was none
            budgets.remove_spend_limit(visit.platform, caller, caller.project_id)

    return await _tried(visit, "limits", form, change)


async def _tried(
    visit: Visit, place: str, form: FormData, change: Callable[[], Response | None]
) -> Response:
    """What the change answers, else the page at that place; where it is refused, the page with
    the reason and with what was typed."""

    def attempt() -> Response:
        try:
            return change() or RedirectResponse(f"/settings#{place}", 303)
        except AfinaError as error:
            told = {"error": error, "typed_in": place, "typed": form}
            return page(visit, "settings.html", _shown(visit) | told, error.status)

    return await to_thread.run_sync(attempt)


def _cents(text: str) -> int:
    try:
        cents = Decimal(text) * 100
    except InvalidOperation:
        cents = Decimal(-1)
    if not cents.is_finite() or cents < 0 or cents != cents.to_integral_value():
        raise InvalidRequest("A budget is dollars and whole cents.", param="dollars")
    return int(cents)


def _whole(form: FormData, field: str) -> int | None:
    text = str(form.get(field) or "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise InvalidRequest(f"{field} must be a whole number.", param=field)
    return int(text)


def _budget(visit: Visit) -> str | None:
    try:
        found = budgets.get_spend_limit(visit.platform, visit.caller, visit.caller.project_id)
    except NotFound:
        return None
    return f"{Decimal(found.cents) / 100:.2f}"


def _shown(visit: Visit) -> dict[str, Any]:
    platform, caller = visit.platform, visit.caller
    settings = platform.settings
    disk = shutil.disk_usage(settings.data)
    manages = caller.manages_organization
    return {
        "keys": keys.list_keys(platform, caller),
        "lives": tuple(_LIVES),
        "webhooks": webhooks.list_endpoints(platform, caller, limit=100).data,
        "event_types": EVENT_TYPES,
        "projects": projects.list_projects(platform, caller) if manages else None,
        "people": people.list_people(platform, caller) if manages else None,
        "limits": limits.list_rate_limits(platform, caller, caller.project_id) if manages else (),
        "budget": _budget(visit) if manages else None,
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "precision": (settings.training.precision, settings.engine.precision),
        "at_once": settings.engine.max_batch,
        "prices": [(base.id, settings.price_of(base.id)) for base in bases.list_bases(platform)],
        "data": str(settings.data),
        "disk": disk,
        "secret": None,
        "secret_of": "",
        "error": None,
        "typed_in": "",
        "typed": {},
        "sent": visit.request.query_params.get("sent") == "1",
    }


ROUTES: Final = (
    ("GET", "/settings", show),
    ("POST", "/settings/keys", create_key),
    ("POST", "/settings/keys/{id}/revoke", revoke_key),
    ("POST", "/settings/webhooks", create_webhook),
    ("POST", "/settings/webhooks/{id}/delete", delete_webhook),
    ("POST", "/settings/webhooks/{id}/test", test_webhook),
    ("POST", "/settings/projects", create_project),
    ("POST", "/settings/people", add_person),
    ("POST", "/settings/people/{id}/remove", remove_person),
    ("POST", "/settings/limits", set_limit),
    ("POST", "/settings/budget", set_budget),
    ("GET", "/settings/keys", show),
    ("GET", "/settings/webhooks", show),
    ("GET", "/settings/projects", show),
    ("GET", "/settings/people", show),
    ("GET", "/settings/limits", show),
    ("GET", "/settings/budget", show),
)
