"""The dashboard as an ASGI application: its routes, its security headers, its errors.

`create_pages` gets a function that says over which platform the pages stand; nothing is opened
here. A path that is not the dashboard's, and a request with an API key in its header, belong to
the API (`Pages.answers`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import quote

import structlog
from anyio import to_thread
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afina.domain import ids
from afina.errors import AfinaError, Internal, NotFound
from afina.service.oidc import CALLBACK
from afina.web import files
from afina.web.pages import ROUTES
from afina.web.refusals import as_json
from afina.web.render import page
from afina.web.visit import Rooms, Visit, check_origin, visit_of

Handler = Callable[[Visit], Response | Awaitable[Response]]

OPEN_TO_ALL: Final = frozenset({"/sign-in", "/enter", "/language", "/sign-in/oidc", CALLBACK})
"""What can be seen without a session."""
THE_APIS: Final = frozenset({"v1", "health", "docs", "openapi.json", "metrics"})
"""What the API answers, whoever asks."""
_SECURITY: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_MAX_PATH: Final = 1024


def create_pages(rooms: Callable[[], Rooms]) -> Pages:
    """The pages over the platform that `rooms` names when a request comes."""
    routes = [
        Route(path, _endpoint(handler, rooms), methods=[method]) for method, path, handler in ROUTES
    ]
    routes.append(Route(files.PREFIX + "{path:path}", files.serve, methods=["GET"]))
    return Pages(routes, rooms)


class Pages:
    """The ASGI application."""

    def __init__(self, routes: list[Route], rooms: Callable[[], Rooms]) -> None:
        self._first = {route.path.split("/")[1] for route in routes}
        self._rooms = rooms
        self._app: ASGIApp = GZipMiddleware(
            Router(routes, redirect_slashes=False, default=self._missing),
            minimum_size=600,
            compresslevel=5,
        )

    def answers(self, scope: Scope) -> bool:
        """Whether this request is a page's."""
        if scope["type"] != "http":
            return False
        headers = dict(scope["headers"])
        if b"authorization" in headers:
            return False
        first = scope["path"].split("/")[1]
        if first in self._first:
            return True
        # A reader who mistyped an address gets a page; a program gets the API's own refusal.
        return b"text/html" in headers.get(b"accept", b"") and first not in THE_APIS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, with the security headers on whatever it is."""
        platform = self._rooms().platform
        started = platform.clock.monotonic()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                extra = [header for header in _SECURITY if header[0] not in names]
                if b"cache-control" not in names:
                    extra.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        scope["afina.request_id"] = platform.ids.new(ids.REQUEST)
        try:
            await self._app(scope, receive, sent)
        except ClientDisconnect:
            pass  # nobody is there to be told
        finally:
            structlog.get_logger("afina.web").info(
                "request",
                request_id=scope["afina.request_id"],
                method=scope["method"],
                path=scope["path"][:200],
                status=status,
                ms=round((platform.clock.monotonic() - started) * 1000, 2),
            )

    async def _missing(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = await visit_of(request, self._rooms())
        error = NotFound("There is no such page.")
        await _told(visit, error)(scope, receive, send)


def _endpoint(handler: Handler, rooms: Callable[[], Rooms]) -> Any:
    async def endpoint(request: Request) -> Response:
        visit = await visit_of(request, rooms())
        try:
            if len(request.url.path) > _MAX_PATH:
                raise NotFound("There is no such page.")
            check_origin(request)
            if visit.session is None and request.url.path not in OPEN_TO_ALL:
                return _to_sign_in(visit)
            if inspect.iscoroutinefunction(handler):
                return cast(Response, await handler(visit))
            return cast(Response, await to_thread.run_sync(handler, visit))
        except AfinaError as error:
            return _told(visit, error)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - the last net: a reader gets a page, not a trace
            request_id = request.scope["afina.request_id"]
            structlog.get_logger("afina.web").error(
                "fault", request_id=request_id, exception=type(error).__name__, where=_where(error)
            )
            return _told(visit, Internal(f"The server's log has the details under {request_id}."))

    return endpoint


def _to_sign_in(visit: Visit) -> Response:
    request = visit.request
    if visit.is_partial:
        return Response("", status_code=401, headers={"hx-refresh": "true"})
    if _wants_json(request):
        return JSONResponse({"error": {"message": "Sign in first.", "code": "session_over"}}, 401)
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET" or target == "/":
        return RedirectResponse("/sign-in", 303)
    return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", 303)


def _told(visit: Visit, error: AfinaError) -> Response:
    """An error as the one who asked can show it."""
    if _wants_json(visit.request):
        return JSONResponse({"error": as_json(visit.texts, error)}, error.status)
    if visit.is_partial:
        response = page(visit, "parts/error.html", {"error": error}, error.status)
        response.headers["hx-retarget"] = "#notices"
        response.headers["hx-reswap"] = "innerHTML"
        return response
    return page(visit, "error.html", {"error": error}, error.status)


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _where(error: Exception) -> list[str]:
    """File and line of each frame; never a value."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(
            f"{code.co_filename.rpartition('afina/')[2]}:{trace.tb_lineno} {code.co_name}"
        )
        trace = trace.tb_next
    return frames[-8:]
