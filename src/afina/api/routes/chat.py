"""/v1/chat/completions: answers, and the stored ones among them.

POST   /v1/chat/completions               answers; with `store`, keeps a copy
GET    /v1/chat/completions               stored completions; ?model=&metadata[k]=v
GET    /v1/chat/completions/{id}
POST   /v1/chat/completions/{id}          {metadata}
DELETE /v1/chat/completions/{id}
GET    /v1/chat/completions/{id}/messages what it was asked with
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import DeletedObject, ListObject, answer, deleted, listing, page
from afina.api.body import read_json
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After, NoQuery, Pair, PairName
from afina.api.streaming import AnswerEndpoint, operation
from afina.errors import InvalidRequest
from afina.service import stored
from afina.service.chat import Prepared
from afina.service.chat_request import ChatRequest, Metadata
from afina.service.refusals import LaxWire, Wire, parse

PATH: Final = "/v1/chat/completions"
ENDPOINT: Final = AnswerEndpoint[ChatRequest, Prepared](ChatRequest, lambda parts: parts.chat)
OPERATION: Final = operation(
    "chat", "create_chat_completion", "Answer a chat", ChatRequest, "a `chat.completion`"
)
router = APIRouter(prefix=PATH, tags=["chat"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))


class CompletionListQuery(LaxWire):
    """GET /v1/chat/completions; every pair of `metadata` must be there."""

    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    metadata: dict[PairName, Pair] | None = None
    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "asc"


class MessageListQuery(LaxWire):
    """GET …/messages."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "asc"


class CompletionUpdate(Wire):
    """POST /v1/chat/completions/{id}."""

    metadata: Metadata | None


SHAPES: Final[tuple[type[BaseModel], ...]] = (
    ChatRequest,
    CompletionListQuery,
    MessageListQuery,
    CompletionUpdate,
)


@router.get(
    "",
    summary="List stored completions",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=CompletionListQuery),
)
def list_completions(
    call: Caller_, asked: Annotated[CompletionListQuery, Depends(query(CompletionListQuery))]
) -> Response:
    """The project's, oldest first unless asked otherwise; those that were made with `store`."""
    wanted = stored.CompletionQuery(
        asked.model, asked.metadata, asked.after, asked.limit, asked.order == "asc"
    )
    found = stored.list_completions(call.platform, call.caller, wanted)
    return answer(page(found, stored.completion_document, ids=True))


@router.get("/{completion_id}", summary="Retrieve a stored completion", dependencies=[_NO_QUERY])
def get_completion(call: Caller_, completion_id: str) -> Response:
    """As it was answered."""
    found = stored.get_completion(call.platform, call.caller, completion_id)
    return answer(stored.completion_document(found))


@router.post(
    "/{completion_id}",
    summary="Change a stored completion's metadata",
    openapi_extra=documented(body=CompletionUpdate),
    dependencies=[_NO_QUERY],
)
async def update_completion(call: Caller_, completion_id: str) -> Response:
    """Metadata alone can be changed; null takes it away."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(CompletionUpdate, body)
    found = await to_thread.run_sync(
        stored.label_completion, call.platform, call.caller, completion_id, asked.metadata or {}
    )
    return answer(stored.completion_document(found))


@router.delete(
    "/{completion_id}",
    summary="Delete a stored completion",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def delete_completion(call: Caller_, completion_id: str) -> Response:
    """Nothing of it is left."""
    stored.delete_completion(call.platform, call.caller, completion_id)
    return answer(deleted(completion_id, "chat.completion.deleted"))


@router.get(
    "/{completion_id}/messages",
    summary="List the messages of a stored completion",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=MessageListQuery),
)
def list_messages(
    call: Caller_,
    completion_id: str,
    asked: Annotated[MessageListQuery, Depends(query(MessageListQuery))],
) -> Response:
    """What the model was asked with."""
    found = stored.get_completion(call.platform, call.caller, completion_id)
    messages = stored.message_documents(found)
    return answer(cut(messages, asked.after, asked.limit, asked.order == "asc"))


def cut(items: list[dict[str, Any]], after: str | None, limit: int, ascending: bool) -> ListObject:
    """A page of a list that is wholly there. Raises InvalidRequest where `after` is not in it."""
    ordered = items if ascending else items[::-1]
    if after is not None:
        places = [n for n, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise InvalidRequest(
                f"There is no {after} in this list to go on after.",
                param="after",
                remedy="Start again without `after`.",
            )
        ordered = ordered[places[0] + 1 :]
    return listing(ordered[:limit], has_more=len(ordered) > limit, ids=True)
