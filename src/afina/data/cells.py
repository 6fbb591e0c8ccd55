"""A cell of a table as text, and texts made of several cells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from afina.data.columns import listed
from afina.errors import InvalidRequest

_NAMED: Final = re.compile(r"\{([^{}]+)\}")


def cell_text(value: Any) -> str:
    """What a reader of the table would see; nothing where there is no value."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return "" if str(value) in ("NaT", "<NA>") else str(value)


def plain_value(value: Any) -> Any:
    """A cell of a DataFrame in the types of JSON: lists of chats come out of Parquet as arrays,
    and what is missing as a number that is none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    return value


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
