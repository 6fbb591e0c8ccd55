"""Routes that the framework describes and does not run: the same paths, and nothing is lost."""

from __future__ import annotations

from typing import Annotated

import anyio
import pytest
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from afina.api.app import ROUTERS
from afina.api.plain_routes import plain_routes


async def read(request: Request) -> str:
    await anyio.sleep(0)
    return request.query_params.get("say", "nothing")


def blocking(request: Request) -> str:
    return request.method


def test_every_declared_operation_is_served_under_its_path_and_methods() -> None:
    for router in ROUTERS:
        declared = [(r.path, r.methods) for r in router.routes if isinstance(r, APIRoute)]
        served = [(r.path, r.methods) for r in plain_routes(router)]
        assert served == declared
        assert declared


def test_a_route_gets_its_texts_what_was_read_and_the_request() -> None:
    router = APIRouter(prefix="/v", dependencies=[Depends(read)])

    @router.get("/{name:path}/end")
    async def waiting(name: str, said: Annotated[str, Depends(read)], request: Request) -> Response:
        return PlainTextResponse(f"{name} {said} {request.method}")

    @router.post("/{name}")
    def beside(name: str, said: Annotated[str, Depends(read)]) -> Response:
        return PlainTextResponse(f"{name} {said} in a thread")

    client = TestClient(Starlette(routes=plain_routes(router)))
    assert client.get("/v/a/b/end?say=x").text == "a/b x GET"
    assert client.post("/v/a").text == "a nothing in a thread"
    assert client.head("/v/a/end").status_code == 405


def test_a_route_that_takes_anything_else_is_refused_when_the_application_is_made() -> None:
    by_query, by_number, by_plain = APIRouter(), APIRouter(), APIRouter()

    @by_query.get("/a")
    async def query(page: int) -> Response:
        return PlainTextResponse(str(page))

    @by_number.get("/a/{number}")
    async def number(number: int) -> Response:
        return PlainTextResponse(str(number))

    @by_plain.get("/a")
    async def plain(said: Annotated[str, Depends(blocking)]) -> Response:
        return PlainTextResponse(said)

    with pytest.raises(TypeError, match="takes what a plain route does not give"):
        plain_routes(by_query)
    with pytest.raises(TypeError, match="no text"):
        plain_routes(by_number)
    with pytest.raises(TypeError, match="no coroutine"):
        plain_routes(by_plain)
