"""Logs of the API: one JSON object a line on stderr, without secrets and without users' texts.

`configure` is called by the process that serves, never at import. A request's line says who, what,
how long and under which id; bodies, queries and answers never appear.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog

from afina.api.log_writer import LogWriter

_SECRET: Final = re.compile(r"(sk-|whsec_|hf_|Bearer\s+)[A-Za-z0-9_\-]{6,}")
_LEVELS: Final = logging.getLevelNamesMapping()


def configure(level: str, *, beside: bool = False) -> None:
    """Sends this process's log to stderr as JSON lines from `level` upwards; with `beside` by a
    thread of its own, so that no line waits for a disk."""
    target: Any = LogWriter(sys.stderr, _left_out) if beside else sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level.upper()], logging.WARNING))


def redact(
    logger: object,  # noqa: ARG001
    name: str,  # noqa: ARG001
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """A structlog processor: whatever looks like a secret becomes its first letters and dots."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = without_secrets(value)
    return event


def without_secrets(text: str) -> str:
    """`text` with keys and tokens cut out."""
    return _SECRET.sub(lambda found: found.group(1) + "…", text)


def frames(trace: TracebackType | None) -> list[str]:
    """Where an exception came from: file, line and function, but no values and no message, which
    may hold a user's text."""
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(trace, limit=-12)
    ]


class _JsonFormatter(logging.Formatter):
    """Lines of other libraries (uvicorn's warnings) in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": without_secrets(record.getMessage()),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["frames"] = " < ".join(frames(record.exc_info[2]))
        return _dump(line)


def _left_out(lines: int) -> str:
    return _dump({"event": "log.left_out", "lines": lines, "level": "warning"})


def _dump(value: object, **_: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
