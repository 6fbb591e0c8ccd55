"""/v1/responses: answers in items, with events while they grow.

POST   /v1/responses                    answers; kept unless `store` is false
POST   /v1/responses/input_tokens       how many tokens the input has
GET    /v1/responses/{id}
DELETE /v1/responses/{id}
POST   /v1/responses/{id}/cancel        refused: responses are answered while one waits
GET    /v1/responses/{id}/input_items   what was put in
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import DeletedObject, ListObject, answer, deleted
from afina.api.body import no_body_expected, read_body, read_json
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After, NoQuery
from afina.api.routes.chat import cut
from afina.api.streaming import AnswerEndpoint, operation
from afina.errors import UnsupportedField
from afina.service import responses
from afina.service.refusals import LaxWire, parse
from afina.service.response_request import ResponseCount, ResponseRequest
from afina.service.responses import PreparedResponse

PATH: Final = "/v1/responses"
ENDPOINT: Final = AnswerEndpoint[ResponseRequest, PreparedResponse](
    ResponseRequest, lambda parts: parts.responses
)
OPERATION: Final = operation(
    "responses", "create_response", "Answer in items", ResponseRequest, "a `response`"
)
router = APIRouter(prefix=PATH, tags=["responses"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))


class ResponseQuery(LaxWire):
    """GET /v1/responses/{id}; streams are told once, while they are answered."""

    include: Any = None
    include_obfuscation: bool | None = None
    starting_after: int | None = None
    stream: bool | None = None


class ItemListQuery(LaxWire):
    """GET …/input_items."""

    after: After | None = None
    include: Any = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


SHAPES: Final[tuple[type[BaseModel], ...]] = (
    ResponseRequest,
    ResponseCount,
    ResponseQuery,
    ItemListQuery,
)


@router.post(
    "/input_tokens",
    summary="Count the tokens of an input",
    openapi_extra=documented(body=ResponseCount),
    dependencies=[_NO_QUERY],
)
async def count_tokens(call: Caller_) -> Response:
    """As the model's own template writes the input, tools included."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(ResponseCount, body)
    count = await to_thread.run_sync(call.parts.responses.count, call.caller, asked)
    return answer({"object": "response.input_tokens", "input_tokens": count})


@router.get(
    "/{response_id}",
    summary="Retrieve a response",
    openapi_extra=documented(query=ResponseQuery),
)
def get_response(
    call: Caller_,
    response_id: str,
    asked: Annotated[ResponseQuery, Depends(query(ResponseQuery))],
) -> Response:
    """As it was answered."""
    for name in ("include", "starting_after", "stream"):
        if getattr(asked, name):
            raise UnsupportedField(
                f"'{name}' is not supported: a kept response is told whole.", param=name
            )
    return answer(responses.find_response(call.platform, call.caller, response_id).document)


@router.delete(
    "/{response_id}",
    summary="Delete a response",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def delete_response(call: Caller_, response_id: str) -> Response:
    """Nothing of it is left; responses that followed it cannot go on from it."""
    responses.delete_response(call.platform, call.caller, response_id)
    return answer(deleted(response_id, "response"))


@router.post("/{response_id}/cancel", summary="Cancel a response", dependencies=[_NO_QUERY])
async def cancel_response(call: Caller_, response_id: str) -> Response:
    """Refused: a response that has an id is over."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    await to_thread.run_sync(responses.cancel_response, call.platform, call.caller, response_id)
    return answer({})


@router.get(
    "/{response_id}/input_items",
    summary="List what was put into a response",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=ItemListQuery),
)
def list_items(
    call: Caller_,
    response_id: str,
    asked: Annotated[ItemListQuery, Depends(query(ItemListQuery))],
) -> Response:
    """The request's own items; those of earlier responses are listed with theirs."""
    if asked.include:
        raise UnsupportedField("'include' is not supported: items are whole.", param="include")
    found = responses.find_response(call.platform, call.caller, response_id)
    items = [dict(item) for item in found.items]
    return answer(cut(items, asked.after, asked.limit, asked.order == "asc"))
