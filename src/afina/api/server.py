"""Runs the API: uvicorn in this process, until a signal or the end of the parent.

Started by the supervisor or by `afina api`; see `afina.api.app` for what is served.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from afina.api import logs
from afina.api.app import create_app
from afina.domain.orphans import die_with_parent
from afina.settings import Settings

DRAIN_S: Final = 20
"""How long open answers may go on after the wish to stop."""


def run(
    settings: Settings,
    parent_fd: int | None = None,
    listener: socket.socket | None = None,
    compose: Callable[[FastAPI], ASGIApp] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered. `listener` is a listening
    socket; without it one is opened on the settings' host and port. `compose` may put something in
    front of the API, such as the dashboard."""
    die_with_parent(parent_fd)
    logs.configure(settings.log_level)
    app = create_app(settings)
    whole: Any = app if compose is None else compose(app)
    config = uvicorn.Config(
        whole,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_S,
        backlog=2048,
    )
    # uvicorn raises the signal once more when it is done; a wish to stop is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=None if listener is None else [listener])
