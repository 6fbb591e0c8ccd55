"""The whole application, pages too, in this process and without sockets: for tests that walk many
operations and look at nothing but status and body."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from starlette.types import ASGIApp
from tests.contract.live import settings_for

from afina.api.app import create_app
from afina.cli.dashboard import with_pages
from afina.service.platform import Platform

Headers = dict[str, str]


@dataclass
class Asked:
    """The running application, and what was answered."""

    app: ASGIApp
    platform: Platform

    async def ask(self, operation: str, headers: Headers, body: bytes = b"{}") -> tuple[int, str]:
        """Status and body of an operation whose path's names are all `nothing`."""
        method, path = re.sub(r"\{[^}]*\}", "nothing", operation).split(" ")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in {"host": "x", **headers}.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        told: list[dict[str, Any]] = []
        coming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not coming:
                await anyio.sleep_forever()
            return coming.pop()

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        text = b"".join(one.get("body", b"") for one in told[1:])
        return int(told[0]["status"]), text.decode("utf-8", "replace")


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Asked]:
    """The application on a data directory of its own, until the block ends."""
    api = create_app(settings_for(folder, log_level="error"))
    async with api.router.lifespan_context(api):
        yield Asked(with_pages(api), api.state.parts.platform)
