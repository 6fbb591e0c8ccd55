"""`afina dashboard`, and the place where the API and the pages become one application."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from afina.cli.options import DataOption, JsonOption, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

    from afina.api.server import Front
    from afina.web.app import Pages
    from afina.web.live import LiveJobs


def dashboard(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Print a link that opens the dashboard once, without a key. Run it where the data is."""
    import json

    from afina.domain.clock import SYSTEM_CLOCK
    from afina.domain.ids import SYSTEM_IDS
    from afina.service.sessions import new_link

    settings = load_settings(data)
    try:
        url = str(json.loads((settings.data / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        url = settings.server_url
    link = url + new_link(settings.data, SYSTEM_CLOCK, SYSTEM_IDS)
    print(json.dumps({"url": link}) if as_json else link)


def with_pages(api: FastAPI) -> Front:
    """The API, with the pages in front of it: they share its platform, which opens with it."""
    from afina.service.oidc_provider import OidcProvider
    from afina.web.app import create_pages
    from afina.web.live import LiveJobs
    from afina.web.visit import Rooms

    live = LiveJobs()

    @functools.cache
    def provider() -> OidcProvider:
        platform = api.state.parts.platform
        return OidcProvider(platform, platform.settings.oidc)

    def rooms() -> Rooms:
        parts = api.state.parts
        vouches = None if parts.settings.oidc is None else provider
        return Rooms(parts.platform, parts.chat, parts.completions, live, vouches)

    return Whole(api, create_pages(rooms), live)


class Whole:
    """One application of API and pages."""

    def __init__(self, api: FastAPI, pages: Pages, live: LiveJobs) -> None:
        self._api, self._pages, self._live = api, pages, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request to whom it belongs."""
        await (self._pages if self._pages.answers(scope) else self._api)(scope, receive, send)

    def leave(self) -> None:
        """Ends live news: browsers come back to the next server."""
        self._live.leave()
