"""/v1/moderations and /v1/embeddings: answered by the engine's other networks."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.body import read_json
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.service.embeddings import EmbeddingRequest, EmbeddingService
from afina.service.moderation import Moderator, moderator_of
from afina.service.moderation_request import ModerationRequest, ModerationService
from afina.service.refusals import parse

router = APIRouter(
    prefix="/v1", tags=["models"], responses=ERRORS, dependencies=[Depends(query(NoQuery))]
)
SHAPES = (ModerationRequest, EmbeddingRequest)


@router.post(
    "/moderations",
    summary="Moderate texts",
    openapi_extra=documented(body=ModerationRequest),
)
async def moderate(call: Caller_) -> Response:
    """Which of thirteen categories texts belong to. The hosted service's model names are accepted;
    `model` in the answer says which model judged."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(ModerationRequest, body)
    service = ModerationService(call.platform, moderator_of_app(call))
    return answer(await to_thread.run_sync(service.answer, call.caller, asked, call.request_id))


@router.post(
    "/embeddings",
    summary="Make vectors of texts",
    openapi_extra=documented(body=EmbeddingRequest),
)
async def embed(call: Caller_) -> Response:
    """A vector of 384 numbers for each input, as numbers or as base64 of little-endian float32.
    Inputs beyond 512 tokens are read in windows, whose vectors are averaged."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(EmbeddingRequest, body)
    service = EmbeddingService(call.platform)
    return answer(await to_thread.run_sync(service.answer, call.caller, asked, call.request_id))


def moderator_of_app(call: Call) -> Moderator:
    """The application's one moderator, which remembers what it has judged."""
    state = call.request.app.state
    found: Moderator | None = getattr(state, "moderator", None)
    if found is None:
        found = state.moderator = moderator_of(call.parts.settings)
    return found
