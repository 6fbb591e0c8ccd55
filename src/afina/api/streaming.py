"""Answers as HTTP: whole or as server-sent events, from one plain ASGI route for all of them.

What is wrong before the first byte is a refusal with its status; what goes wrong later ends the
stream with an error event and no `[DONE]`, so that a short answer never looks whole. A client that
goes away takes its request back from the engine at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from anyio import to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from afina.api.body import read_json
from afina.api.call import Parts, parts_of
from afina.api.documents import documented
from afina.api.errors import envelope, internal
from afina.api.logs import frames
from afina.api.middleware import REQUEST_ID
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.domain.accounts import Caller
from afina.errors import AfinaError, Unavailable
from afina.service.chat_answer import error_event
from afina.service.refusals import parse

_read_query = query(NoQuery)
_JSON: Final = [(b"content-type", b"application/json")]
_EVENTS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back to fill a buffer
]
M = TypeVar("M", bound=BaseModel)
P = TypeVar("P", bound="Streamable")
Asked = TypeVar("Asked", bound=BaseModel, contravariant=True)


class Streamable(Protocol):
    """A request that is ready for the engine."""

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted in pieces."""
        ...


class Answerer(Protocol[Asked, P]):
    """What answers requests of one shape (see `service.chat`)."""

    def prepare(self, caller: Caller, request: Asked, request_id: str, /) -> P: ...

    async def complete(self, prepared: P, /) -> bytes: ...

    def stream(self, prepared: P, /) -> AsyncGenerator[bytes]: ...


def operation(
    tag: str, name: str, summary: str, shape: type[BaseModel], told: str
) -> dict[str, Any]:
    """The OpenAPI document's words for an endpoint; `told` is what it answers."""
    return {
        "tags": [tag],
        "summary": summary,
        "description": f"With `stream`, server-sent events; otherwise {told}.",
        "operationId": name,
        **documented(body=shape),
        "responses": {
            "200": {"description": f"{told[:1].upper()}{told[1:]}, or its events."},
            "4XX": {"description": "Refused; the error says what to do."},
            "5XX": {"description": "A fault, or a part is not ready yet."},
        },
    }


class AnswerEndpoint(Generic[M, P]):
    """A route as an ASGI application."""

    def __init__(self, shape: type[M], answerer: Callable[[Parts], Answerer[M, P]]) -> None:
        self._shape = shape
        self._answerer = answerer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        parts = parts_of(scope)
        request = Request(scope, receive)
        caller = await parts.keyring.caller(scope)
        if scope["query_string"]:
            await _read_query(request)
        body = await read_json(request, parts.settings.max_body_bytes)
        asked = parse(self._shape, body)
        request_id: str = scope[REQUEST_ID]
        answerer = self._answerer(parts)
        prepared = await to_thread.run_sync(answerer.prepare, caller, asked, request_id)
        if prepared.stream:
            work = _stream(answerer.stream(prepared), request_id, send)
        else:
            work = _complete(answerer.complete(prepared), send)
        await _unless_gone(receive, work)


async def _complete(answer: Coroutine[Any, Any, bytes], send: Send) -> None:
    await _respond(send, _JSON, await answer)


async def _stream(stream: AsyncGenerator[bytes], request_id: str, send: Send) -> None:
    started = False
    async with contextlib.aclosing(stream) as events:
        try:
            async for event in events:
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
                await send({"type": "http.response.body", "body": event, "more_body": True})
            last = b""
        except (Exception, asyncio.CancelledError) as error:
            if not started:
                raise
            last = error_event(envelope(_told(error, request_id)))
            if isinstance(error, asyncio.CancelledError):
                await _end(send, last)
                raise
    await _end(send, last)


async def _end(send: Send, last: bytes) -> None:
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _respond(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _told(error: BaseException, request_id: str) -> AfinaError:
    """What a client is told of a stream that broke off; a fault of ours is logged here, because
    nothing above can answer any more."""
    if isinstance(error, asyncio.CancelledError):
        return Unavailable("The server is stopping and broke this answer off.", remedy="Ask again.")
    if isinstance(error, AfinaError):
        return error
    structlog.get_logger("afina.api").error(
        "fault",
        request_id=request_id,
        exception=type(error).__name__,
        frames=frames(error.__traceback__),
    )
    return internal(request_id)


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Does `work` until it is done or the client has gone; then nothing more is sent."""
    answer = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            await answer
    finally:
        gone.cancel()
        if not answer.done():
            answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        if not answer.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await answer


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
