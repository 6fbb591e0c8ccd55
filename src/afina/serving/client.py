"""The engine's client: what the api and the worker know of the engine. No torch here.

One connection a request, so that closing it is how a caller takes a request back: leave the
iterator of `generate` early (with `contextlib.aclosing`) and the engine frees its slot. Every
refusal raises the class of `afina.errors` that the engine named; a stream that ends without its
final line raises EngineFailed, so a short answer never looks whole.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from afina.errors import EngineFailed, Unavailable
from afina.serving.failures import to_error
from afina.serving.line_stream import LineStream, request_bytes
from afina.serving.protocol import (
    Delta,
    EngineHealth,
    Failure,
    Final,
    Forget,
    Generate,
    Score,
    Scored,
    Trainers,
    decode_line,
)

T = TypeVar("T")
_REMEDY = (
    "Ask again in some seconds if it is just starting; else start it with `afina engine`, or all "
    "parts with `afina up`."
)
_AGAIN_S = 5.0
"""How long a client should wait: an engine that was killed is back about then."""


class EngineClient:
    """Talks to the engine behind a unix socket. Cheap to make; holds no connection."""

    def __init__(self, socket_path: Path, *, timeout_s: float = 600.0) -> None:
        self._socket = socket_path
        self._timeout_s = timeout_s

    async def generate(self, request: Generate) -> AsyncGenerator[Delta | Final, None]:
        """The answer's deltas as they come, then exactly one Final. Raises what the engine says."""
        stream = await self._open("/generate", msgspec.json.encode(request))
        try:
            while True:
                raw = await stream.line(self._timeout_s)
                if raw is None:
                    raise _broken_off()
                line = _decoded(raw)
                if isinstance(line, Failure):
                    raise to_error(line)
                yield line
                if isinstance(line, Final):
                    return
        finally:
            stream.close()

    async def score(self, request: Score) -> Scored:
        """Log-probabilities of forced ids."""
        return _scored(await self._call("/score", msgspec.json.encode(request)))

    async def health(self) -> EngineHealth:
        """What the engine says of itself. Raises Unavailable where none runs."""
        return _answer(await self._call("/health", None), EngineHealth)

    async def metrics(self) -> bytes:
        """What the engine counts, as Prometheus reads it."""
        return await self._call("/metrics", None) + b"\n"

    async def forget(self, adapter: str) -> None:
        """Drops an adapter from the engine's memory."""
        await self._call("/forget", msgspec.json.encode(Forget(adapter)))

    async def set_trainers(self, count: int, ttl_s: float = 30.0) -> None:
        """Says how many trainers share the machine; holds for `ttl_s`."""
        await self._call("/trainers", msgspec.json.encode(Trainers(count, ttl_s)))

    async def _call(self, path: str, body: bytes | None) -> bytes:
        stream = await self._open(path, body)
        try:
            lines = []
            while (line := await stream.line(self._timeout_s)) is not None:
                lines.append(line)
        finally:
            stream.close()
        return _checked(b"\n".join(lines), stream.status)

    async def _open(self, path: str, body: bytes | None) -> LineStream:
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_unix_connection(LineStream, str(self._socket))
        except OSError:
            raise _unavailable() from None
        stream.send(request_bytes(path, body))
        return stream


class BlockingEngineClient:
    """The same calls for callers without an event loop: the worker and the commands."""

    def __init__(self, socket_path: Path, *, timeout_s: float = 600.0) -> None:
        self._socket = socket_path
        self._timeout_s = timeout_s

    def score(self, request: Score) -> Scored:
        """Log-probabilities of forced ids."""
        return _scored(self._call("/score", msgspec.json.encode(request)))

    def health(self) -> EngineHealth:
        """What the engine says of itself. Raises Unavailable where none runs."""
        return _answer(self._call("/health", None), EngineHealth)

    def set_trainers(self, count: int, ttl_s: float = 30.0) -> None:
        """Says how many trainers share the machine; holds for `ttl_s`."""
        self._call("/trainers", msgspec.json.encode(Trainers(count, ttl_s)))

    def forget(self, adapter: str) -> None:
        """Drops an adapter from the engine's memory."""
        self._call("/forget", msgspec.json.encode(Forget(adapter)))

    def _call(self, path: str, body: bytes | None) -> bytes:
        connection = _UnixConnection(self._socket, self._timeout_s)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            return _checked(response.read(), response.status)
        except (ConnectionError, FileNotFoundError) as error:
            raise _unavailable() from error
        except TimeoutError:
            raise EngineFailed(
                f"The engine runs and has said nothing for {self._timeout_s:g} s.",
                remedy="Ask again.",
            ) from None
        except (http.client.HTTPException, OSError) as error:
            raise _broken_off() from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _decoded(raw: bytes) -> Delta | Final | Failure:
    try:
        return decode_line(raw)
    except msgspec.DecodeError as error:
        raise EngineFailed(f"The engine sent a line that is not of its protocol: {error}") from None


def _checked(body: bytes, status: int) -> bytes:
    if status == 0:
        raise _broken_off()
    if status >= 400:
        line = _decoded(body)
        if isinstance(line, Failure):
            raise to_error(line)
    return body


def _answer(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise _broken_off() from None


def _scored(body: bytes) -> Scored:
    answer: Any = _answer(body, Scored | Failure)  # type: ignore[arg-type]
    if isinstance(answer, Failure):
        raise to_error(answer)
    assert isinstance(answer, Scored)
    return answer


def _unavailable() -> Unavailable:
    # Not a word of the socket: this reaches users of the API, whom paths of the machine tell
    # nothing.
    return Unavailable("The engine is not running.", remedy=_REMEDY, retry_after_s=_AGAIN_S)


def _broken_off() -> EngineFailed:
    return EngineFailed(
        "The engine broke off its answer before the end.",
        remedy="Ask again: the engine is restarted by itself.",
        retry_after_s=_AGAIN_S,
    )
