"""What the routes of the organization share: reading a body, and pages of short lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from afina.api.answers import answer, listing
from afina.api.body import read_json
from afina.api.call import Call
from afina.api.requests import After
from afina.errors import InvalidRequest
from afina.service.refusals import LaxWire, parse

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    list[Annotated[str, Field(max_length=320)]], BeforeValidator(_as_list), Field(max_length=100)
]
"""A list in a query string: `name[]=a&name[]=b`, or `name=a` alone."""


class ListQuery(LaxWire):
    """A page of a list."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


async def body_of(call: Call, shape: type[M]) -> M:
    """The request's JSON as a `shape`."""
    return parse(shape, await read_json(call.request, call.parts.settings.max_body_bytes))


def short_page(
    items: Sequence[T],
    shape: Callable[[T], dict[str, Any]],
    asked: ListQuery,
    *,
    before: str | None = None,
) -> Response:
    """A page of a list that is short enough to be read whole. Raises InvalidRequest where `after`
    or `before` names nothing in it."""
    shown = [shape(item) for item in items]
    start, end = 0, len(shown)
    ids = [item["id"] for item in shown]
    for name, mark in (("after", asked.after), ("before", before)):
        if mark is None:
            continue
        if mark not in ids:
            raise InvalidRequest(
                f"There is no {mark} in this list.", param=name, remedy=f"Start without `{name}`."
            )
        if name == "after":
            start = ids.index(mark) + 1
        else:
            end = ids.index(mark)
    page = shown[start:end][: asked.limit]
    return answer(listing(page, has_more=end - start > len(page), ids=True))


def removed(id_: str, kind: str) -> Response:
    """What a deletion answers."""
    return answer({"id": id_, "object": f"{kind}.deleted", "deleted": True})
