"""Reading a request's body: capped while it is read, and JSON that cannot hurt.

Refused with the place of the fault: what is not UTF-8, NaN and Infinity, numbers without bounds,
half surrogate pairs, nesting beyond the interpreter's own limit, and an object that has a key
twice, one of whose values would be ignored.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import Request

from afina.data.twice import key_twice
from afina.domain.clock import SYSTEM_CLOCK
from afina.errors import InvalidRequest, TooLarge, TooSlow

_DIAGNOSED_BYTES: Final = 1_000_000
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_CODE: Final = "invalid_json"


IDLE_S: Final = 30.0
"""A body of which nothing more comes for so long is given up."""
LEAST_BYTES_PER_S: Final = 512
"""A body that is under way for longer than `IDLE_S` must have come faster than this."""


async def arriving(request: Request) -> AsyncIterator[bytes]:
    """The body's pieces as they come. Raises TooSlow for one that trickles: it would hold its
    connection and its file for ever. Raises InvalidRequest for one that is compressed."""
    _refuse_compressed(request)
    started, seen = SYSTEM_CLOCK.monotonic(), 0
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise _too_slow() from None
        if piece is None:
            return
        seen += len(piece)
        spent = SYSTEM_CLOCK.monotonic() - started
        if spent > IDLE_S and seen < spent * LEAST_BYTES_PER_S:
            raise _too_slow()
        yield piece


def _refuse_compressed(request: Request) -> None:
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise InvalidRequest(
            f"The body is compressed ({coding[:64]}), and bodies are read as they are.",
            param="Content-Encoding",
            code="unsupported_content_encoding",
            remedy="Send it without Content-Encoding.",
        )


def _too_slow() -> TooSlow:
    return TooSlow("The request's body came too slowly and was given up.", code="request_timeout")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is larger than `max_bytes`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    pieces = bytearray()
    async for piece in arriving(request):
        pieces += piece
        if len(pieces) > max_bytes:
            raise too_large(max_bytes)
    return bytes(pieces)


async def read_json(request: Request, max_bytes: int) -> dict[str, object]:
    """The body as a JSON object. Raises InvalidRequest, TooLarge."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", "") and not kind.endswith("+json"):
        raise InvalidRequest(
            f"The content type must be application/json, not {kind[:100]}.",
            code="unsupported_content_type",
        )
    return object_of(await read_body(request, max_bytes))


def object_of(raw: bytes) -> dict[str, object]:
    """`raw` as a JSON object. Raises InvalidRequest that says where it is not."""
    if not raw.strip():
        raise InvalidRequest(
            "The request has no body: a JSON object is expected.", code="missing_required_parameter"
        )
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.", code=_CODE) from None
    except RecursionError:
        raise InvalidRequest("The JSON body is nested too deeply.", code=_CODE) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(
            f"The body could not be parsed as JSON: {_diagnosis(raw, error)}.", code=_CODE
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequest(
            "Invalid type for the request: expected a JSON object.", code="invalid_type"
        )
    path = key_twice(raw, value)
    if path is not None:
        raise InvalidRequest(
            f"Duplicate parameter: '{path}' stands more than once, and only one could count.",
            param=path,
            code="duplicate_parameter",
            remedy="Keep one of them.",
        )
    return value


def no_body_expected(raw: bytes) -> None:
    """Actions take no body; an empty object is none. Raises InvalidRequest."""
    if raw.strip() and object_of(raw):
        first = next(iter(object_of(raw)))
        raise InvalidRequest(
            f"Unknown parameter: '{first[:64]}'. This operation takes no body.",
            param=first[:64],
            code="unknown_parameter",
        )


def too_large(max_bytes: int) -> TooLarge:
    """The refusal of a body beyond the cap."""
    return TooLarge(
        f"The request's body is larger than {max_bytes} bytes.", code="request_too_large"
    )


def _diagnosis(raw: bytes, error: Exception) -> str:
    """The standard library names line and column; it is asked only once something is wrong."""
    if len(raw) > _DIAGNOSED_BYTES:
        return str(error)
    try:
        json.loads(raw.decode(), parse_constant=_constant)
    except json.JSONDecodeError as told:
        return f"{told.msg} (line {told.lineno}, column {told.colno})"
    except (ValueError, RecursionError) as told:
        return str(told)
    if _SURROGATE.search(raw):
        return "a \\u escape is half of a surrogate pair"
    return "a number is out of range" if "range" in str(error) else str(error)


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
