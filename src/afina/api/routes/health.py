"""/health, /docs and /openapi.json: no key needed, nothing of a user in them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from anyio import to_thread
from fastapi import APIRouter
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response

from afina.api import documents
from afina.api.answers import answer
from afina.api.call import Parts, parts_of
from afina.api.errors import envelope
from afina.errors import AfinaError, Unavailable
from afina.service.platform import Platform

router = APIRouter(tags=["health"])
_TIMEOUT_S: Final = 2.0


@router.get(
    "/health",
    summary="Whether the platform can work",
    openapi_extra={"security": []},
    responses={503: {"description": "A part does not answer; it is named."}},
)
async def health(request: Request) -> Response:
    """200 when the database and the engine answer, else 503 with the part that does not."""
    parts = parts_of(request.scope)
    database, engine = await asyncio.gather(_database(parts.platform), _engine(parts))
    found = {"database": database, "engine": engine}
    bad = [f"{name}: {said}" for name, said in found.items() if said != "ok"]
    if not bad:
        return answer({"status": "ok", "parts": found})
    error = Unavailable(
        f"Not ready. {' '.join(bad)}", remedy="The log of that part says more; try again soon."
    )
    return answer({"status": "unavailable", "parts": found, **envelope(error)}, 503)


@router.get("/openapi.json", include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The OpenAPI document."""
    return answer(_document(request))


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The same document as a page."""
    return documents.page(_document(request))


def _document(request: Request) -> dict[str, Any]:
    document: dict[str, Any] = request.app.openapi()
    return document


async def _database(platform: Platform) -> str:
    def ask() -> None:
        with platform.database.read() as tx:
            tx.execute(text("SELECT 1"))

    try:
        await asyncio.wait_for(to_thread.run_sync(ask, abandon_on_cancel=True), _TIMEOUT_S)
    except TimeoutError:
        return "does not answer in time."
    except Exception as error:  # noqa: BLE001 - any fault means the same: not ready
        return f"does not answer ({type(error).__name__})."
    return "ok"


async def _engine(parts: Parts) -> str:
    try:
        said = await asyncio.wait_for(parts.engine.health(), _TIMEOUT_S)
    except TimeoutError:
        return "does not answer in time."
    except AfinaError as error:
        return error.one_line()
    return "ok" if said.status == "ok" else f"is {said.status}."
