"""The one middleware, in pure ASGI: a request's id, its headers, its line in the log, and the last
net under it. It never buffers a body, so streams pass through it untouched.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afina.api.errors import error_response, internal
from afina.api.logs import frames
from afina.domain import ids
from afina.domain.clock import Clock
from afina.domain.ids import Ids
from afina.errors import AfinaError, InvalidRequest

REQUEST_ID: Final = "afina.request_id"
"""Key of the request's id in the ASGI scope."""
CALLER: Final = "afina.caller"
"""Key of the caller in the ASGI scope, once it is known."""
_MAX_PATH: Final = 1024
_MAX_CLIENT_ID: Final = 512
_FIXED: Final = (
    (b"openai-version", b"2020-10-01"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, clock: Clock, ids: Ids) -> None:
        self._app = app
        self._clock = clock
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._clock, self._ids.new(ids.REQUEST))
        scope[REQUEST_ID] = answer.request_id
        refused = _unfit(scope)
        try:
            if refused is None:
                await self._app(scope, receive, answer.send)
            else:
                await error_response(refused)(scope, receive, answer.send)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception as error:
            answer.note_fault(error)
            if answer.status is None:
                await error_response(internal(answer.request_id))(scope, receive, answer.send)
            else:
                raise
        finally:
            answer.log()


class _Answer:
    """What was sent for one request."""

    def __init__(self, scope: Scope, send: Send, clock: Clock, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._clock = clock
        self._started = clock.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def note_fault(self, error: Exception) -> None:
        structlog.get_logger("afina.api").error(
            "fault",
            request_id=self.request_id,
            exception=type(error).__name__,
            frames=frames(error.__traceback__),
        )

    def log(self) -> None:
        caller = self._scope.get(CALLER)
        structlog.get_logger("afina.api").info(
            "request",
            request_id=self.request_id,
            method=self._scope["method"],
            path=self._scope["path"][:200],
            status=self.status,
            ms=round(self._ms(), 2),
            key=None if caller is None else caller.key_id,
            client_request_id=_header(self._scope, b"x-client-request-id"),
        )

    def _ms(self) -> float:
        return (self._clock.monotonic() - self._started) * 1000

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", str(round(self._ms())).encode()),
            *_FIXED,
        ]
        caller = self._scope.get(CALLER)
        if caller is not None:
            found.append((b"openai-organization", caller.organization_id.encode()))
            found.append((b"openai-project", caller.project_id.encode()))
            found += self._limits()
        return found

    def _limits(self) -> list[tuple[bytes, bytes]]:
        standing = self._scope["app"].state.parts.limiter.standing_of(self.request_id)
        if standing is None:
            return []
        return [(name.encode(), value.encode()) for name, value in standing.headers()]


def _unfit(scope: Scope) -> AfinaError | None:
    if len(scope["path"]) > _MAX_PATH:
        return InvalidRequest(f"The URL is longer than {_MAX_PATH} characters.", code="unknown_url")
    client_id = _header(scope, b"x-client-request-id")
    if client_id is not None and (len(client_id) > _MAX_CLIENT_ID or not client_id.isascii()):
        return InvalidRequest(
            f"X-Client-Request-Id must be ASCII and at most {_MAX_CLIENT_ID} characters.",
            code="invalid_value",
        )
    return None


def _header(scope: Scope, name: bytes) -> str | None:
    headers: list[tuple[bytes, bytes]] | Any = scope["headers"]
    for key, value in headers:
        if key == name:
            return str(value.decode("latin-1"))
    return None
