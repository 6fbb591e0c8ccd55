"""Where an object of a JSON text has a key twice: parsers keep one of its values in silence."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_MOST_SHOWN = 200


class _Repeated(dict[str, Any]):
    key = ""


def key_twice(raw: bytes, value: object) -> str | None:
    """The path of the first such key, outer objects before inner ones, such as `messages[0].role`;
    None where there is none. `value` is what `raw` was parsed as."""
    return None if _surely_once(raw, value) else _find(raw)


def _surely_once(raw: bytes, value: object) -> bool:
    # Written again, a key that stood twice has left quotation marks behind; this costs a tenth of
    # what looking at each pair costs.
    if rb"\u0022" in raw:
        return False
    try:
        return msgspec.json.encode(value).count(b'"') == raw.count(b'"')
    except (OverflowError, msgspec.MsgspecError):
        return False


def _find(raw: bytes) -> str | None:
    # Every number as a float: the longest that are let in would be refused as whole ones.
    looked = json.loads(raw.decode(), object_pairs_hook=_pairs, parse_int=float)
    level: list[tuple[str, Any]] = [("", looked)]
    while level:
        for path, value in level:
            if isinstance(value, _Repeated):
                return f"{path}.{value.key}".lstrip(".")[-_MOST_SHOWN:]
        level = [pair for path, value in level for pair in _inside(path, value)]
    return None


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) == len(items):
        return found
    repeated = _Repeated(found)
    seen: set[str] = set()
    for key, _ in items:
        if key in seen:
            repeated.key = key
            break
        seen.add(key)
    return repeated


def _inside(path: str, value: object) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{path}.{key}" if path else key, inner) for key, inner in value.items()]
    if isinstance(value, list):
        return [(f"{path}[{n}]", inner) for n, inner in enumerate(value)]
    return []
