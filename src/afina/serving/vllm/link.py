"""The HTTP link to a vLLM server: short calls, and answers that come line by line. No torch here.

One connection a request, as towards our own engine: closing it takes the request back, and vLLM
frees its place. No proxy of the environment is asked, and nothing but the address that is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from afina.errors import Unavailable
from afina.outside_settings import VllmSettings
from afina.serving.line_stream import LineStream, request_bytes

T = TypeVar("T")
CONNECT_S: Final = 5.0
CALL_S: Final = 60.0
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a whole answer."""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    retry_after: str | None = None

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    def read(self, kind: type[T]) -> T:
        """The body as `kind`. Raises msgspec.DecodeError."""
        return msgspec.json.decode(self.body, type=kind)


class VllmLink:
    """Knows the address and the key; holds no connection."""

    def __init__(self, settings: VllmSettings) -> None:
        parts = urlsplit(settings.url)
        self.url = settings.url
        self.is_secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.is_loopback = self.host in {"localhost", "::1"} or self.host.startswith("127.")
        self._port = parts.port or (443 if self.is_secure else 80)
        self._path = parts.path
        self._timeout_s = settings.timeout_s
        key = "" if settings.key is None else f"authorization: Bearer {settings.key}\r\n"
        self._head = f"host: {parts.netloc}\r\naccept: */*\r\nconnection: close\r\n{key}"

    async def call(self, path: str, body: Any = None, *, timeout_s: float = CALL_S) -> Reply:
        """A whole answer: GET without a body, else POST. Raises Unavailable, EngineFailed."""
        stream = await self.open(path, None if body is None else msgspec.json.encode(body))
        try:
            async with asyncio.timeout(timeout_s):
                return await self.reply(stream)
        except TimeoutError:
            raise self.away(f"gave no answer to {path} within {timeout_s:.0f} s") from None
        finally:
            stream.close()

    async def open(self, path: str, body: bytes | None) -> LineStream:
        """An answer that begins; whoever opens it closes it. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self.is_secure else None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, stream = await loop.create_connection(
                    lambda: LineStream("The vLLM server"), self.host, self._port, ssl=context
                )
        except (OSError, TimeoutError) as error:
            why = "refused" if isinstance(error, ConnectionRefusedError) else type(error).__name__
            raise self.away(f"cannot be reached ({why})") from None
        stream.send(request_bytes(self._path + path, body, self._head))
        return stream

    async def reply(self, stream: LineStream) -> Reply:
        """The rest of an answer, whole. Raises Unavailable where it was cut."""
        lines, size = [], 0
        while (line := await stream.line(self._timeout_s)) is not None:
            lines.append(line)
            size += len(line)
            if size > MOST_BYTES:
                raise self.away("answers without an end")
        if not stream.whole:
            raise self.away("broke off its answer")
        body = b"\n".join([*lines, stream.rest])
        return Reply(stream.status, body, stream.headers.get("retry-after"))

    async def head(self, stream: LineStream) -> int:
        """The status of an answer that begins. Raises Unavailable where none comes."""
        status = await stream.head(self._timeout_s)
        if not status:
            raise self.away("closed the connection without an answer")
        return status

    async def line(self, stream: LineStream, patience_s: float | None = None) -> bytes | None:
        """The next line, None at the end; with `patience_s` None too where none comes in time."""
        if patience_s is None:
            return await stream.line(self._timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                return await stream.line(self._timeout_s)
        return None

    def away(self, what: str) -> Unavailable:
        """That it cannot be used now, and how."""
        return Unavailable(
            f"The vLLM server at {self.url} {what}.",
            remedy="Start it, or see `afina doctor`; AFINA_ENGINE__VLLM__URL says where it is.",
            retry_after_s=5.0,
        )
