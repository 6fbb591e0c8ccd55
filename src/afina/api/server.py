"""Runs the API: uvicorn in this process, until a signal or the end of the parent.

Started by the supervisor or by `afina api`; see `afina.api.app` for what is served.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from afina.api import logs
from afina.api.app import create_app
from afina.api.wire_protocol import EnvelopedProtocol
from afina.domain.collector import settle
from afina.domain.orphans import die_with_parent
from afina.settings import Settings

DRAIN_S: Final = 20
"""How long open answers may go on after the wish to stop."""

_SWITCH_S: Final = 0.0002


class Front(Protocol):
    """What stands in front of the API: an ASGI application with answers that would never end by
    themselves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def leave(self) -> None:
        """End those answers now: the server stops."""


class _Server(uvicorn.Server):
    """Sets the interpreter up for answering, and tells the front that the server stops, before
    open answers are waited for."""

    def __init__(self, config: uvicorn.Config, front: Front | None) -> None:
        super().__init__(config)
        self._front = front

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _settle()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._front is not None:
            self._front.leave()
        await super().shutdown(sockets)


def _settle() -> None:
    """What was loaded stays: the collector walks over it no more, which took a tenth of a second
    in the middle of requests. A thread that computes lets the loop in after a fifth of a
    millisecond."""
    settle()
    gc.set_threshold(5000, 20, 20)
    sys.setswitchinterval(_SWITCH_S)


def run(
    settings: Settings,
    parent_fd: int | None = None,
    listener: socket.socket | None = None,
    compose: Callable[[FastAPI], Front] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered. `listener` is a listening
    socket; without it one is opened on the settings' host and port. `compose` may put something in
    front of the API, such as the dashboard."""
    die_with_parent(parent_fd)
    logs.configure(settings.log_level, beside=True)
    app = create_app(settings)
    front = None if compose is None else compose(app)
    whole: Any = front or app
    config = uvicorn.Config(
        whole,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=EnvelopedProtocol,
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
    _Server(config, front).run(sockets=None if listener is None else [listener])
