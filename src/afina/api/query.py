"""Query strings and form fields: text in brackets (`metadata[k]=v`) becomes nested, empty brackets
(`group_by[]=a`) a list; other names that repeat or that nobody knows are refused."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from afina.errors import InvalidRequest
from afina.service.refusals import parse

M = TypeVar("M", bound=BaseModel)
_BRACKETS: Final = re.compile(r"([^\[\]]{1,64})\[([^\[\]]{0,64})\]")


def query(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads the query string as a `model`."""

    async def read(request: Request) -> M:
        return parse(model, nested(request.query_params.multi_items()))

    return read


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`metadata[k]=v` as `{"metadata": {"k": "v"}}`, `a[]=1&a[]=2` as `{"a": ["1", "2"]}`. Raises
    InvalidRequest for a name given twice or with and without brackets."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        inside = _BRACKETS.fullmatch(name)
        if inside is not None and not inside.group(2):
            items = found.setdefault(inside.group(1), [])
            if isinstance(items, list):
                items.append(value)
                continue
        target, key = found, name
        if inside is not None:
            target = found.setdefault(inside.group(1), {})
            key = inside.group(2)
        if not isinstance(target, dict) or key in target:
            raise InvalidRequest(
                f"'{name[:64]}' is given more than once.", param=name[:64], code="invalid_value"
            )
        target[key] = value
    return found
