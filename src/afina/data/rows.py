"""One line of JSONL as a value, and a chat row as what the renderer takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None

_SHOWN: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def quick_value(raw: bytes, max_depth: int) -> Any:
    """The value of a line that is certainly fine, or `msgspec.UNSET` for one to look at closely.

    Closely: what the fast parser refuses, what may be nested too deeply, and what may hold a key
    twice (then writing the value again gives fewer quotation marks than were read).
    """
    try:
        value = msgspec.json.decode(raw)
        if raw.count(b'"') != msgspec.json.encode(value).count(b'"') or rb"\u0022" in raw:
            return msgspec.UNSET
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return msgspec.UNSET
    if raw.count(b"[") + raw.count(b"{") > max_depth and depth(raw) > max_depth:
        return msgspec.UNSET
    return value


def slow_value(raw: bytes) -> Any:
    """The value of a line that passed all the line rules, whatever made it suspicious."""
    return json.loads(raw.decode("utf-8"))


def depth(raw: bytes) -> int:
    """How deeply brackets outside strings are nested. Needs no recursion and no valid JSON."""
    outside = re.sub(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', b"", raw)
    deepest = level = 0
    for character in outside:
        if character in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif character in b"]}":
            level -= 1
    return deepest


def chat_of(row: Mapping[str, Any]) -> tuple[Messages, Tools]:
    """The messages of a row and its tools; the older `functions` are tools too."""
    tools = row.get("tools")
    functions = row.get("functions")
    if not tools and functions:
        tools = [{"type": "function", "function": function} for function in functions]
    return row["messages"], tools or None


def shown(name: object) -> str:
    """A key or role for a message: itself where it looks like a name, else only its length, as
    it may be text that people wrote."""
    if isinstance(name, str) and _SHOWN.fullmatch(name):
        return f'"{name}"'
    if isinstance(name, str):
        return f"a string of {len(name)} characters"
    return type_name(name)


def shown_field(name: object) -> str | None:
    """A key as the field of a finding, None where it may be text that people wrote."""
    return name if isinstance(name, str) and _SHOWN.fullmatch(name) else None


def type_name(value: object) -> str:
    """What JSON calls the type of `value`, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"
