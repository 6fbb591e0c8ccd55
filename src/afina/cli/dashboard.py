"""`afina dashboard`, and the place where the API and the pages become one application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afina.cli.options import DataOption, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send


def dashboard(data: DataOption = None) -> None:
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
    print(url + new_link(settings.data, SYSTEM_CLOCK, SYSTEM_IDS))


def with_pages(api: FastAPI) -> ASGIApp:
    """The API, with the pages in front of it: they share its platform, which opens with it."""
    from afina.web.app import create_pages
    from afina.web.visit import Rooms

    pages = create_pages(lambda: Rooms(api.state.parts.platform, api.state.parts.chat))

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        await (pages if pages.answers(scope) else api)(scope, receive, send)

    return whole
