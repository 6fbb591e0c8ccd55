"""/v1/batches: many requests in a file, answered in the background within a day."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response
from typing_extensions import TypedDict

from afina.api.answers import ListObject, answer, page
from afina.api.batch_requests import BatchCreate, BatchListQuery
from afina.api.body import no_body_expected, object_of, read_body
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.api.retries import idempotency_of
from afina.domain.batches import Batch
from afina.service import batches
from afina.service.refusals import parse

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_TIMES = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class BatchObject(TypedDict):
    """A batch; each state that it has been in has its time."""

    id: str
    object: str
    endpoint: str
    model: str | None
    errors: dict[str, Any] | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: dict[str, int]
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None


@router.post(
    "",
    summary="Create a batch",
    responses={200: {"model": BatchObject}},
    openapi_extra=documented(body=BatchCreate),
    dependencies=[_NO_QUERY],
)
async def create(call: Caller_) -> Response:
    """The input is checked and answered in the background."""
    raw = await read_body(call.request, call.parts.settings.max_body_bytes)
    asked = parse(BatchCreate, object_of(raw))
    expiry = asked.output_expires_after
    new = batches.NewBatch(
        asked.input_file_id,
        asked.endpoint,
        asked.metadata,
        None if expiry is None else expiry.seconds,
    )
    again = idempotency_of(call.request, raw, "POST /v1/batches")
    made = await to_thread.run_sync(batches.create_batch, call.platform, call.caller, new, again)
    return answer(_batch(made))


@router.get(
    "",
    summary="List batches",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=BatchListQuery),
)
def list_batches(
    call: Caller_, asked: Annotated[BatchListQuery, Depends(query(BatchListQuery))]
) -> Response:
    """The project's batches, newest first."""
    found = batches.list_batches(call.platform, call.caller, asked.after, asked.limit)
    return answer(page(found, _batch, ids=True))


@router.get(
    "/{batch_id}",
    summary="Retrieve a batch",
    responses={200: {"model": BatchObject}},
    dependencies=[_NO_QUERY],
)
def retrieve(call: Caller_, batch_id: str) -> Response:
    """A batch as it stands now."""
    return answer(_batch(batches.get_batch(call.platform, call.caller, batch_id)))


@router.post(
    "/{batch_id}/cancel",
    summary="Cancel a batch",
    responses={200: {"model": BatchObject}},
    dependencies=[_NO_QUERY],
)
async def cancel(call: Caller_, batch_id: str) -> Response:
    """It ends soon; what is answered already is in its output file then."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    found = await to_thread.run_sync(batches.cancel_batch, call.platform, call.caller, batch_id)
    return answer(_batch(found))


def _batch(batch: Batch) -> dict[str, Any]:
    errors = batch.errors
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": None if errors is None else {"object": "list", "data": list(errors)},
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        **{name: getattr(batch, name) for name in _TIMES},
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": _usage(batch),
        "metadata": None if batch.metadata is None else dict(batch.metadata),
    }


def _usage(batch: Batch) -> dict[str, Any] | None:
    used = batch.usage
    if used is None:
        return None
    return {
        "input_tokens": used["input"],
        "input_tokens_details": {"cached_tokens": used["cached"]},
        "output_tokens": used["output"],
        "output_tokens_details": {"reasoning_tokens": used["reasoning"]},
        "total_tokens": used["input"] + used["output"],
    }
