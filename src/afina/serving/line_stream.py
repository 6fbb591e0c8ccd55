"""One HTTP answer, line by line: the thin protocol under the engine's client and the link to vLLM.

Read with httptools on an asyncio protocol, since general HTTP clients spend several times more on
each line. One connection a request: closing it is how a request is taken back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

import httptools

from afina.errors import EngineFailed

_HIGH_WATER: Final = 1024


class LineStream(asyncio.Protocol):
    """One response, line by line. Lines that nobody has read yet hold the sender back."""

    def __init__(self, who: str = "The engine") -> None:
        self._who = who
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._lines: deque[bytes] = deque()
        self._ended = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """Known from the head on; 0 before it."""
        self.headers: dict[str, str] = {}
        """By lower-case name."""
        self.rest = b""
        """What came behind the last newline."""
        self.whole = False
        """Whether the answer ended as its head said, and was not cut."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def head(self, timeout_s: float) -> int:
        """The status, once it is there; 0 if the connection ended without one."""
        while not self.status and not self._ended:
            await self._wait(timeout_s)
        return self.status

    async def line(self, timeout_s: float) -> bytes | None:
        """The next line without its newline; None at the end."""
        while not self._lines:
            if self._ended:
                return None
            await self._wait(timeout_s)
        line = self._lines.popleft()
        if self._paused and not self._lines and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return line

    async def _wait(self, timeout_s: float) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiter
        except TimeoutError:
            raise EngineFailed(
                f"{self._who} said nothing for {timeout_s:.0f} s.", remedy="Ask again."
            ) from None
        finally:
            self._waiter = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._end()
            return
        if len(self._lines) > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        *whole, self.rest = (self.rest + body).split(b"\n")
        self._lines.extend(line for line in whole if line)

    def on_message_complete(self) -> None:
        self.whole = True
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        # A rest without its newline is no line: it may have been cut, and the missing final line
        # says so to the reader.
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def request_bytes(path: str, body: bytes | None, head: str = "host: engine\r\n") -> bytes:
    """A GET, or a POST of a JSON `body`. `head`: its other header lines."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")
    told = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{head}{told}\r\n".encode("latin-1") + body
