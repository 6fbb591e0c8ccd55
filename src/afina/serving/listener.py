"""A small HTTP/1.1 server over a unix socket: one request a connection, answers as lines.

It knows nothing of engines: the engine and the scripted engine of the tests hand it a function.
Bodies end with the connection, or carry their length; a client that hangs up is told to the
exchange at once, which is how a request is taken back. The socket is its owner's alone (0600).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import httptools

from afina.errors import Unavailable

_TURNS: Final = 5
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024
_REASONS: Final = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 429: b"Too Many Requests"}


class Exchange:
    """One request and its answer, used from the event loop's thread only."""

    def __init__(self, method: str, path: str, body: bytes, transport: asyncio.Transport) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.begun = False
        """Whether an answer in lines has begun."""
        self.gone = False
        """Whether the client hung up, or reads so slowly that it was cut off."""
        self.on_gone: Callable[[], None] | None = None
        """Called once if the client goes before the answer is complete."""
        self._transport = transport
        self._finished = False

    def answer(self, status: int, body: bytes) -> None:
        """A whole answer at once: one line."""
        body += b"\n"
        self._write(_head(status, b"application/json", len(body)) + body)
        self.finish()

    def start(self) -> None:
        """Begins an answer in lines."""
        self.begun = True
        self._write(_head(200, b"application/x-ndjson", None))

    def write(self, lines: bytes) -> None:
        """More lines of the answer."""
        self._write(lines)

    def finish(self) -> None:
        """The answer is complete."""
        self._finished = True
        self._transport.close()

    def lost(self) -> None:
        """The connection ended; told once by the listener."""
        if self._finished or self.gone:
            return
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()

    def _write(self, data: bytes) -> None:
        if self.gone or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()
            self.lost()


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Callable[[Exchange], None], alive: set[_Connection]) -> None:
        self._handler = handler
        self._alive = alive
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._path = ""
        self._body = bytearray()
        self._exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._alive.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(400)

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self._refuse(413)

    def on_message_complete(self) -> None:
        if self._exchange is not None or self._transport is None:
            return
        method = self._parser.get_method().decode("latin-1")
        self._exchange = Exchange(method, self._path, bytes(self._body), self._transport)
        self._handler(self._exchange)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._alive.discard(self)
        if self._exchange is not None:
            self._exchange.lost()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, status: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_head(status, b"application/json", 0))
            self._transport.close()


class Listener:
    """An open socket and the connections on it."""

    def __init__(self, path: Path, server: asyncio.Server, alive: set[_Connection]) -> None:
        self._path = path
        self._server = server
        self._alive = alive

    async def close(self, patience_s: float = 0.0) -> None:
        """Takes no more connections; those that are open may send the rest of what was written
        within `patience_s`, then they are cut off. The socket is removed, at once: another engine
        may take its place meanwhile."""
        self._path.unlink(missing_ok=True)
        for _ in range(_TURNS):
            # Whoever found the socket before is accepted and in `_alive` then. A server that is
            # closed between the two loses the connection without closing it.
            await asyncio.sleep(0)
        self._server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while self._alive and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._alive):
            connection.abort()
        while self._alive:
            await asyncio.sleep(0)


async def listen(path: Path, handler: Callable[[Exchange], None]) -> Listener:
    """Serves `handler` on the unix socket `path`. Raises Unavailable if another serves there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        if _is_served(path):
            raise Unavailable(
                f"Another engine is already running on {path}.",
                remedy="Stop it first, or give this one another data directory.",
            )
        path.unlink()
    alive: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    mask = os.umask(0o177)
    try:
        server = await loop.create_unix_server(
            lambda: _Connection(handler, alive), str(path), backlog=1024
        )
    finally:
        os.umask(mask)
    return Listener(path, server, alive)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def _head(status: int, kind: bytes, length: int | None) -> bytes:
    head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n" % (status, _REASONS.get(status, b"-"), kind)
    if length is not None:
        head += b"content-length: %d\r\n" % length
    return head + b"connection: close\r\n\r\n"
