"""Routes that FastAPI describes and Starlette runs.

A route is declared as FastAPI wants it, and the OpenAPI document is written from that. To run one,
FastAPI asks router after router, solves dependencies in general and enters exit stacks for each
request: most of what a simple answer cost (decision 0440). Our routes take a request, texts of the
path, and what functions read of the request; that much is called here as it stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

Endpoint = Callable[[Request], Awaitable[Response]]


def plain_routes(router: APIRouter) -> list[Route]:
    """The routes of a router, to be run without the framework. Raises TypeError for one that takes
    anything else than ours do."""
    return [_plain(route) for route in router.routes]


def _plain(route: BaseRoute) -> Route:
    if not isinstance(route, APIRoute):
        raise TypeError(f"{route!r} is no route of FastAPI's")
    made = Route(route.path, _endpoint(route), name=route.name, methods=list(route.methods or ()))
    made.methods = set(route.methods or ())  # Starlette would answer HEAD wherever it answers GET
    return made


def _endpoint(route: APIRoute) -> Endpoint:
    given = route.dependant
    reads = [(one.name, _reader(route, one)) for one in given.dependencies]
    texts = [param.name for param in given.path_params]
    whole, call = given.request_param_name, given.call
    _refuse_others(route, given)
    assert call is not None
    waits = iscoroutinefunction(call)

    async def answer(request: Request) -> Response:
        values: dict[str, Any] = {name: request.path_params[name] for name in texts}
        for name, read in reads:
            found = await read(request)
            if name is not None:
                values[name] = found
        if whole is not None:
            values[whole] = request
        if waits:
            response: Response = await call(**values)
        else:
            response = await to_thread.run_sync(lambda: call(**values))
        return response

    return answer


def _reader(route: APIRoute, given: Dependant) -> Callable[[Request], Awaitable[Any]]:
    _refuse_others(route, given)
    call = given.call
    if (
        call is None
        or given.dependencies
        or given.path_params
        or not iscoroutinefunction(call)
        or given.request_param_name is None
    ):
        raise TypeError(f"{route.path}: {call} is no coroutine that reads a request alone")
    return call


def _refuse_others(route: APIRoute, given: Dependant) -> None:
    others = [*given.query_params, *given.header_params, *given.cookie_params, *given.body_params]
    special = [
        given.websocket_param_name,
        given.http_connection_param_name,
        given.response_param_name,
        given.background_tasks_param_name,
        given.security_scopes_param_name,
    ]
    if others or any(special):
        raise TypeError(f"{route.path} takes what a plain route does not give")
    if any(param.field_info.annotation is not str for param in given.path_params):
        raise TypeError(f"{route.path} takes a part of the path that is no text")
