"""/v1/fine_tuning/jobs: create, list, retrieve, cancel; events and checkpoints."""

from __future__ import annotations

import hashlib
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response

from afina.api.answers import (
    JobObject,
    ListObject,
    answer,
    checkpoint_object,
    event_object,
    job_object,
    page,
)
from afina.api.body import no_body_expected, object_of, read_body
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import (
    CheckpointListQuery,
    EventListQuery,
    JobCreate,
    JobListQuery,
    NoQuery,
    job_request,
)
from afina.errors import InvalidRequest
from afina.service import jobs
from afina.service.refusals import parse

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_KEY_MOST = 255


@router.post(
    "",
    summary="Create a fine-tuning job",
    responses={200: {"model": JobObject}},
    openapi_extra=documented(body=JobCreate),
    dependencies=[_NO_QUERY],
)
async def create(call: Caller_) -> Response:
    """Answers at once; the job is validated, queued and trained in the background. The same
    `Idempotency-Key`, or a retry by the official client, gives the same job."""
    raw = await read_body(call.request, call.parts.settings.max_body_bytes)
    asked = job_request(parse(JobCreate, object_of(raw)))
    job = await to_thread.run_sync(
        jobs.create_job, call.platform, call.caller, asked, _idempotency(call, raw)
    )
    return answer(job_object(job, call.caller))


@router.get(
    "",
    summary="List fine-tuning jobs",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=JobListQuery),
)
def list_jobs(
    call: Caller_, asked: Annotated[JobListQuery, Depends(query(JobListQuery))]
) -> Response:
    """The project's jobs, newest first."""
    metadata = {} if asked.metadata == "null" else asked.metadata
    found = jobs.list_jobs(call.platform, call.caller, asked.after, asked.limit, metadata)
    return answer(page(found, lambda job: job_object(job, call.caller), ids=False))


@router.get(
    "/{job_id}",
    summary="Retrieve a job",
    responses={200: {"model": JobObject}},
    dependencies=[_NO_QUERY],
)
def retrieve(call: Caller_, job_id: str) -> Response:
    """A job as it stands now."""
    return answer(job_object(jobs.get_job(call.platform, call.caller, job_id), call.caller))


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": JobObject}},
    dependencies=[_NO_QUERY],
)
async def cancel(call: Caller_, job_id: str) -> Response:
    """A waiting job is cancelled at once, a running one at its next step."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    job = await to_thread.run_sync(jobs.cancel_job, call.platform, call.caller, job_id)
    return answer(job_object(job, call.caller))


@router.post(
    "/{job_id}/pause",
    summary="Pause a job",
    responses={200: {"model": JobObject}},
    dependencies=[_NO_QUERY],
)
async def pause(call: Caller_, job_id: str) -> Response:
    """A queued job rests at once, a running one at its next step, with a model of what it learned
    so far that can be used meanwhile."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    job = await to_thread.run_sync(jobs.pause_job, call.platform, call.caller, job_id)
    return answer(job_object(job, call.caller))


@router.post(
    "/{job_id}/resume",
    summary="Resume a paused job",
    responses={200: {"model": JobObject}},
    dependencies=[_NO_QUERY],
)
async def resume(call: Caller_, job_id: str) -> Response:
    """The job is queued again and goes on from where it stood."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    job = await to_thread.run_sync(jobs.resume_job, call.platform, call.caller, job_id)
    return answer(job_object(job, call.caller))


@router.get(
    "/{job_id}/events",
    summary="List a job's events",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=EventListQuery),
)
def list_events(
    call: Caller_, job_id: str, asked: Annotated[EventListQuery, Depends(query(EventListQuery))]
) -> Response:
    """Newest first."""
    found = jobs.list_events(call.platform, call.caller, job_id, asked.after, asked.limit)
    return answer(page(found, event_object, ids=False))


@router.get(
    "/{job_id}/checkpoints",
    summary="List a job's checkpoints",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=CheckpointListQuery),
)
def list_checkpoints(
    call: Caller_,
    job_id: str,
    asked: Annotated[CheckpointListQuery, Depends(query(CheckpointListQuery))],
) -> Response:
    """Highest step first."""
    found = jobs.list_checkpoints(call.platform, call.caller, job_id, asked.after, asked.limit)
    return answer(page(found, checkpoint_object, ids=True))


def _idempotency(call: Caller_, raw: bytes) -> jobs.Idempotency:
    headers = call.request.headers
    key = headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _KEY_MOST:
        raise InvalidRequest(
            f"The header Idempotency-Key must have 1 to {_KEY_MOST} characters.",
            param="Idempotency-Key",
            code="invalid_value",
        )
    count = headers.get("x-stainless-retry-count", "0")
    return jobs.Idempotency(
        body_sha256=hashlib.sha256(raw).hexdigest(),
        key=key,
        retried=count.isdecimal() and int(count[:9]) > 0,
    )
