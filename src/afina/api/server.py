"""Runs the API: uvicorn in this process, until a signal or the end of the parent.

The pipe that a parent hands down (`parent_fd`) reads as ended when the parent dies, however it
dies; the server then stops as if it had been asked to. See `afina.api.app` for what is served.
"""

from __future__ import annotations

import asyncio
import os
import socket

import uvicorn

from afina.api.app import create_app
from afina.settings import Settings

GRACE_S = 30
"""How long open answers may go on after the server was asked to stop."""


def run(settings: Settings, parent_fd: int | None = None, sock: socket.socket | None = None) -> None:
    """Serve until SIGTERM, SIGINT or the end of `parent_fd`; `sock` is a listening socket, else
    one is opened on the settings' host and port."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        if parent_fd is not None:
            asyncio.get_running_loop().add_reader(parent_fd, _stop_at_end, server, parent_fd)
        await server.serve(sockets=None if sock is None else [sock])

    asyncio.run(serve(), loop_factory=None)


def _stop_at_end(server: uvicorn.Server, parent_fd: int) -> None:
    if not os.read(parent_fd, 1):
        asyncio.get_running_loop().remove_reader(parent_fd)
        server.should_exit = True
