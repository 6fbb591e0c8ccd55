"""Runs the API: uvicorn in this process, until a signal or the end of the parent.

Started by the supervisor or by `afina api`; see `afina.api.app` for what is served.
"""

from __future__ import annotations

import signal
import socket
from typing import Final

import uvicorn

from afina.api import logs
from afina.api.app import create_app
from afina.domain.orphans import die_with_parent
from afina.settings import Settings

DRAIN_S: Final = 20
"""How long open answers may go on after the wish to stop."""


def run(
    settings: Settings, parent_fd: int | None = None, listener: socket.socket | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered. `listener` is a listening
    socket; without it one is opened on the settings' host and port."""
    die_with_parent(parent_fd)
    logs.configure(settings.log_level)
    config = uvicorn.Config(
        create_app(settings),
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
