"""Errors become HTTP here and nowhere else: the status, the envelope and the headers of a retry.

An AfinaError says what it is; anything else is a 500 that tells its request's id and nothing more.
No stack trace and no text of a user leaves through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from afina.api.absent import absence
from afina.errors import AfinaError, Internal, InvalidRequest, NotFound, TooLarge

_NEAR = 0.85
_SHOWN = 200
"""A URL is shown no longer than this."""


class MethodNotAllowed(AfinaError):
    """The URL exists, the method does not."""

    status = 405
    kind = "invalid_request_error"
    default_code = "method_not_allowed"


def envelope(error: AfinaError) -> dict[str, Any]:
    """The `error` object that OpenAI's clients read."""
    return {
        "error": {
            "message": error.one_line(),
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: AfinaError) -> Response:
    """The whole HTTP answer for an error."""
    headers = {"x-should-retry": "true" if error.retry else "false"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        headers["retry-after-ms"] = str(round(error.retry_after_s * 1000))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(envelope(error)),
        status_code=error.status,
        headers=headers,
        media_type="application/json",
    )


def internal(request_id: str) -> Internal:
    """What a client is told of a fault of ours."""
    return Internal(
        "The server had an error while processing your request. "
        f"The server's log has the details under the request id {request_id}."
    )


def install(app: FastAPI) -> None:
    """Makes the application answer every error in the envelope."""
    app.add_exception_handler(AfinaError, _afina)
    app.add_exception_handler(HTTPException, _http)


async def _afina(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, AfinaError)
    return error_response(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:_SHOWN]}"
    if error.status_code == 404:
        return error_response(
            absence(request.method, request.url.path)
            or NotFound(f"Invalid URL ({where}).", code="unknown_url", remedy=_meant(request))
        )
    if error.status_code == 405:
        response = error_response(
            absence(request.method, request.url.path)
            or MethodNotAllowed(f"Not allowed: {where}. Another method may be.")
        )
        if error.headers and response.status_code == 405:
            response.headers.update(error.headers)
        return response
    if error.status_code == 413:
        return error_response(TooLarge(f"The body of {where} is too large."))
    return error_response(InvalidRequest(f"{where} could not be understood."))


def _meant(request: Request) -> str | None:
    """What a URL that there is not was probably meant to be."""
    path = request.url.path.rstrip("/")
    known = {route for route in _paths(request.app) if "{" not in route}
    if path in ("", "/v1"):
        return "GET /docs lists the operations."
    if f"/v1{path}" in known:
        return "Let the client's base_url end with /v1."
    if path.removeprefix("/v1") in known:
        return "The client's base_url holds /v1 twice."
    near = get_close_matches(path, known, n=1, cutoff=_NEAR)
    return f"Did you mean {near[0]}?" if near else None


def _paths(app: FastAPI) -> Iterable[str]:
    """The paths of our document: the routes themselves are nested."""
    paths: dict[str, Any] = app.openapi()["paths"]
    return paths
