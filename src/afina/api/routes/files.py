"""/v1/files: upload, list, retrieve, download, delete."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from afina.api.answers import (
    DeletedObject,
    FileObject,
    ListObject,
    answer,
    deleted,
    file_object,
    page,
)
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented, multipart
from afina.api.multipart import FileField, read_form
from afina.api.query import nested, query
from afina.api.requests import FileListQuery, NoQuery, UploadForm, refuse_purpose
from afina.api.retries import idempotency_of
from afina.errors import InvalidRequest
from afina.service import files
from afina.service.refusals import parse
from afina.service.room import check_room

router = APIRouter(prefix="/v1/files", tags=["files"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_PIECE_BYTES = 256 * 1024


@router.post(
    "",
    summary="Upload a file",
    responses={200: {"model": FileObject}},
    openapi_extra=multipart(UploadForm),
    dependencies=[_NO_QUERY],
)
async def upload(call: Caller_) -> Response:
    """Multipart with `file`, `purpose` and, if it shall expire, `expires_after[anchor]` and
    `expires_after[seconds]`, in any order."""
    platform = call.platform
    most = platform.settings.max_upload_bytes
    await to_thread.run_sync(check_room, platform, _announced(call.request, most))
    field = FileField("file", most, lambda: platform.blobs.writer(most))
    form = await read_form(call.request, field)
    try:
        asked = parse(UploadForm, nested(form.pairs))
        refuse_purpose(asked.purpose)
        if form.staged is None or form.filename is None:
            raise InvalidRequest(
                "Missing required parameter: 'file'.",
                param="file",
                code="missing_required_parameter",
            )
        expires = None if asked.expires_after is None else asked.expires_after.seconds
        new = files.NewFile(form.filename, asked.purpose, expires)
        # The form's own bytes differ from try to try (its boundary does): the file's hash counts.
        asked_before = idempotency_of(call.request, b"", "POST /v1/files")
        stored = await to_thread.run_sync(
            files.keep_file, platform, call.caller, form.staged, new, asked_before
        )
    finally:
        form.close()
    return answer(file_object(stored))


def _announced(request: Request, most: int) -> int:
    """How many bytes the client says that it sends; more than the limit is refused elsewhere."""
    said = request.headers.get("content-length", "0")
    return min(int(said[:18]), most) if said.isascii() and said.isdecimal() else 0


@router.get(
    "",
    summary="List files",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=FileListQuery),
)
def list_files(
    call: Caller_, asked: Annotated[FileListQuery, Depends(query(FileListQuery))]
) -> Response:
    """The project's files, newest first unless `order` says otherwise."""
    wanted = files.FileQuery(asked.purpose, asked.limit, asked.order, asked.after)
    found = files.list_files(call.platform, call.caller, wanted)
    return answer(page(found, file_object, ids=True))


@router.get(
    "/{file_id}",
    summary="Retrieve a file",
    responses={200: {"model": FileObject}},
    dependencies=[_NO_QUERY],
)
def retrieve(call: Caller_, file_id: str) -> Response:
    """What is known of a file."""
    return answer(file_object(files.get_file(call.platform, call.caller, file_id)))


@router.delete(
    "/{file_id}",
    summary="Delete a file",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def delete(call: Caller_, file_id: str) -> Response:
    """Deletes the file and its bytes."""
    files.delete_file(call.platform, call.caller, file_id)
    return answer(deleted(file_id, "file"))


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The bytes."}
}


@router.get(
    "/{file_id}/content", summary="Download a file", responses=_CONTENT, dependencies=[_NO_QUERY]
)
def content(call: Caller_, file_id: str) -> Response:
    """The bytes as they were uploaded; a job's tables as base64 text, as the hosted service serves
    them."""
    stored, handle = files.open_file(call.platform, call.caller, file_id)
    if stored.is_table:
        with handle:
            return Response(base64.b64encode(handle.read()), media_type="text/plain")
    headers = {
        "content-length": str(stored.bytes),
        "content-disposition": "attachment",
    }
    return StreamingResponse(
        _pieces(handle), media_type="application/octet-stream", headers=headers
    )


def _pieces(handle: BinaryIO) -> Iterator[bytes]:
    with handle:
        while piece := handle.read(_PIECE_BYTES):
            yield piece
