"""POST /v1/afina/distill: a training file from stored chat completions."""

from __future__ import annotations

from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer, file_object
from afina.api.body import read_json
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.service import stored
from afina.service.chat_request import Metadata
from afina.service.refusals import Wire, parse

router = APIRouter(prefix="/v1/afina", tags=["afina"], responses=ERRORS)


class Distill(Wire):
    """Which stored completions become rows; every pair of `metadata` must be theirs."""

    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    metadata: Metadata | None = None
    filename: Annotated[str, Field(min_length=1, max_length=200)] = "distilled.jsonl"


SHAPES: Final[tuple[type[BaseModel], ...]] = (Distill,)


@router.post(
    "/distill",
    summary="Make a training file of stored completions",
    openapi_extra=documented(body=Distill),
    dependencies=[Depends(query(NoQuery))],
)
async def distill(call: Caller_) -> Response:
    """The file is of purpose `fine-tune`; `left_out` counts the completions that gave no row."""
    asked = parse(Distill, await read_json(call.request, call.parts.settings.max_body_bytes))
    wanted = stored.CompletionQuery(asked.model, asked.metadata)
    made = await to_thread.run_sync(
        stored.distill, call.platform, call.caller, wanted, asked.filename
    )
    return answer(
        {
            "object": "afina.distilled",
            "file": file_object(made.file),
            "rows": made.rows,
            "left_out": dict(made.left_out),
        }
    )
