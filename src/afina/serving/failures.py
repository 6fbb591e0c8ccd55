"""Errors as they cross the engine's socket: a class of `afina.errors` by its name, and back.

A kind that this side does not know becomes EngineFailed: a foreign engine can never make the
client raise something that its callers do not catch.
"""

from __future__ import annotations

import msgspec

from afina import errors
from afina.errors import AfinaError, EngineFailed
from afina.serving.listener import Exchange
from afina.serving.protocol import Failure, encode_line


def to_failure(error: AfinaError) -> Failure:
    """The Failure line that says `error`."""
    return Failure(
        kind=type(error).__name__,
        message=error.message,
        param=error.param,
        code=error.code,
        retry_after_s=error.retry_after_s,
        remedy=error.remedy,
    )


def to_error(failure: Failure) -> AfinaError:
    """The error that a Failure line says."""
    return _class_of(failure.kind)(
        failure.message,
        param=failure.param,
        code=failure.code,
        retry_after_s=failure.retry_after_s,
        remedy=failure.remedy,
    )


def status_of(failure: Failure) -> int:
    """The HTTP status of a request that was refused with `failure`."""
    return _class_of(failure.kind).status


def refuse(exchange: Exchange, error: AfinaError) -> None:
    """Ends an exchange with `error`: as its whole answer, or as the last line of one that began."""
    failure = to_failure(error)
    if exchange.begun:
        exchange.write(encode_line(failure))
        exchange.finish()
    else:
        exchange.answer(status_of(failure), msgspec.json.encode(failure))


def _class_of(kind: str) -> type[AfinaError]:
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, AfinaError):
        return found
    return EngineFailed
