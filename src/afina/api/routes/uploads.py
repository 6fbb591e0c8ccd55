"""/v1/uploads: a file in parts, which may come in parallel, out of order and more than once."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response
from typing_extensions import TypedDict

from afina.api.answers import FileObject, answer, file_object
from afina.api.body import no_body_expected, object_of, read_body
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented, multipart
from afina.api.multipart import FileField, read_form
from afina.api.query import nested, query
from afina.api.requests import NoQuery, refuse_purpose
from afina.api.retries import idempotency_of, is_retry
from afina.api.upload_requests import PartForm, UploadComplete, UploadCreate
from afina.domain.files import StoredFile
from afina.domain.uploads import PART_BYTES, Upload
from afina.errors import InvalidRequest
from afina.service import uploads
from afina.service.files import NewFile
from afina.service.refusals import parse

router = APIRouter(
    prefix="/v1/uploads",
    tags=["uploads"],
    responses=ERRORS,
    dependencies=[Depends(query(NoQuery))],
)


class UploadObject(TypedDict):
    """An upload in parts."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None


class PartObject(TypedDict):
    """A part of an upload."""

    id: str
    object: str
    created_at: int
    upload_id: str


@router.post(
    "",
    summary="Open an upload",
    responses={200: {"model": UploadObject}},
    openapi_extra=documented(body=UploadCreate),
)
async def create(call: Caller_) -> Response:
    """It takes parts for an hour, up to 8 GB together."""
    raw = await read_body(call.request, call.parts.settings.max_body_bytes)
    asked = parse(UploadCreate, object_of(raw))
    refuse_purpose(asked.purpose)
    expires = None if asked.expires_after is None else asked.expires_after.seconds
    new = uploads.NewUpload(
        NewFile(asked.filename, asked.purpose, expires), asked.bytes, asked.mime_type
    )
    again = idempotency_of(call.request, raw, "POST /v1/uploads")
    made = await to_thread.run_sync(uploads.create_upload, call.platform, call.caller, new, again)
    return answer(_upload(made))


@router.post(
    "/{upload_id}/parts",
    summary="Add a part",
    responses={200: {"model": PartObject}},
    openapi_extra=multipart(PartForm, "data"),
)
async def add_part(call: Caller_, upload_id: str) -> Response:
    """Multipart with `data`, at most 64 MB."""
    platform = call.platform
    await to_thread.run_sync(uploads.check_open, platform, call.caller, upload_id)
    field = FileField("data", PART_BYTES, lambda: platform.blobs.writer(PART_BYTES))
    form = await read_form(call.request, field)
    try:
        parse(PartForm, nested(form.pairs))
        if form.staged is None:
            raise InvalidRequest(
                "Missing required parameter: 'data'.",
                param="data",
                code="missing_required_parameter",
            )
        again = idempotency_of(call.request, b"", "")
        part = await to_thread.run_sync(
            uploads.add_part, platform, call.caller, upload_id, form.staged, again
        )
    finally:
        form.close()
    shown = PartObject(
        id=part.id, object="upload.part", created_at=part.created_at, upload_id=upload_id
    )
    return answer(shown)


@router.post(
    "/{upload_id}/complete",
    summary="Complete an upload",
    responses={200: {"model": UploadObject}},
    openapi_extra=documented(body=UploadComplete),
)
async def complete(call: Caller_, upload_id: str) -> Response:
    """Makes a file of the parts in the order named; `md5` of the whole is checked if given."""
    raw = await read_body(call.request, call.parts.settings.max_body_bytes)
    asked = parse(UploadComplete, object_of(raw))
    finish = partial(uploads.complete_upload, retried=is_retry(call.request))
    upload, file = await to_thread.run_sync(
        finish, call.platform, call.caller, upload_id, asked.part_ids, asked.md5
    )
    return answer(_upload(upload, file))


@router.post(
    "/{upload_id}/cancel",
    summary="Cancel an upload",
    responses={200: {"model": UploadObject}},
)
async def cancel(call: Caller_, upload_id: str) -> Response:
    """Drops what has come; no parts can be added after it."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    upload = await to_thread.run_sync(uploads.cancel_upload, call.platform, call.caller, upload_id)
    return answer(_upload(upload))


def _upload(upload: Upload, file: StoredFile | None = None) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status.value,
        "file": None if file is None else file_object(file),
    }
