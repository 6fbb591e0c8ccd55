"""A cell of a table as text, and texts made of several cells."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from afina.data.columns import listed
from afina.errors import InvalidRequest

_NAMED: Final = re.compile(r"\{([^{}]+)\}")


def cell_text(value: Any) -> str:
    """What a reader of the table would see; nothing where there is no value. Raises InvalidRequest
    for bytes that are no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return _decoded(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return "" if _is_missing(value) else moment_text(value) or str(value)


def moment_text(value: Any) -> str | None:
    """A date, or a moment, as ISO 8601 writes it for people: midnight is not said. A length of time
    in hours, minutes and seconds, as sheets show it. None for what is neither."""
    if isinstance(value, datetime.datetime):
        is_date = value.time() == datetime.time(0) and value.tzinfo is None
        return value.date().isoformat() if is_date else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta) and not _is_missing(value):
        minutes, seconds = divmod(round(abs(value).total_seconds()), 60)
        sign = "-" if value < datetime.timedelta(0) else ""
        return f"{sign}{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return None


def _is_missing(value: Any) -> bool:
    return str(value) in ("NaT", "<NA>")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a cell holds bytes that are no text", param="column") from None


def plain_value(value: Any) -> Any:
    """A cell of a DataFrame in the types of JSON: lists of chats come out of Parquet as arrays,
    and what is missing as a number that is none. What is missing inside was not there."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)) or _is_missing(value):
        return None
    if isinstance(value, dict):
        plain = ((str(key), plain_value(inner)) for key, inner in value.items())
        return {key: inner for key, inner in plain if inner is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(inner) for inner in value]
    if isinstance(value, str | bool | int | float | bytes):
        return value
    return moment_text(value) or str(value)


def is_template(text: str, columns: Sequence[str]) -> bool:
    """Whether `text` is made of columns in braces, and is none of their names itself."""
    return text not in columns and _NAMED.search(text) is not None


def check_template(text: str, columns: Sequence[str], flag: str) -> None:
    """Raises InvalidRequest where a template names a column that there is not."""
    for name in _NAMED.findall(text):
        if name not in columns:
            raise InvalidRequest(
                f"There is no column {name!r} for --{flag}.",
                param=flag,
                remedy=listed(columns),
            )


def fill_template(text: str, values: Mapping[str, Any]) -> str:
    """The template with each column's text in its place."""
    return _NAMED.sub(lambda match: cell_text(values.get(match.group(1))), text)
