"""Settings: language and theme, keys, webhooks, projects, prices and what the disk holds."""

from __future__ import annotations

import shutil
from typing import Any, Final

from anyio import to_thread
from starlette.responses import RedirectResponse, Response

from afina.domain.webhooks import EVENT_TYPES
from afina.errors import AfinaError, InvalidRequest
from afina.service import bases, keys, projects, webhooks
from afina.service.webhooks import EndpointChanges
from afina.web.render import page
from afina.web.visit import Visit, form_of

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

    def make() -> dict[str, Any]:
        try:
            _, secret = keys.create_key(visit.platform, visit.caller, name, _LIVES[life])
        except AfinaError as error:
            return _shown(visit) | {"error": error}
        return _shown(visit) | {"secret": secret, "secret_of": name}

    shown = await to_thread.run_sync(make)
    return page(visit, "settings.html", shown, 400 if shown["error"] else 200)


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

    def make() -> dict[str, Any]:
        try:
            endpoint = webhooks.create_endpoint(visit.platform, visit.caller, asked)
        except AfinaError as error:
            return _shown(visit) | {"error": error}
        return _shown(visit) | {"secret": endpoint.secret, "secret_of": endpoint.name}

    shown = await to_thread.run_sync(make)
    return page(visit, "settings.html", shown, 400 if shown["error"] else 200)


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
    await to_thread.run_sync(projects.create_project, visit.platform, visit.caller, name)
    return RedirectResponse("/settings#projects", 303)


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
        "prices": [(base.id, settings.price_of(base.id)) for base in bases.list_bases(platform)],
        "data": str(settings.data),
        "disk": disk,
        "secret": None,
        "secret_of": "",
        "error": None,
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
)
