"""Uploads in parts: for files too large or lines too shaky for one request.

A part is a blob that the upload holds. Completing reads the parts in the order that the client
names, hashes and checks the whole on the way, and makes the file and ends the upload in one
transaction; the parts' bytes go after it. What nobody completes within the hour is swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.files import StoredFile
from afina.domain.ids import PART, UPLOAD
from afina.domain.uploads import OPEN_S, PART_BYTES, TOTAL_BYTES, Upload, UploadPart, UploadStatus
from afina.errors import InvalidRequest, NotFound
from afina.service.files import NewFile, add_file, check_bytes, check_new_file, find_file
from afina.service.once import Idempotency, once
from afina.service.platform import Platform
from afina.service.room import check_room
from afina.store import references, uploads
from afina.store.blobs import CHUNK_BYTES, StagedBlob
from afina.store.references import Holder

MAX_PARTS: Final = 10_000
_ROOM: Final = 2
"""Parts may be sent again; all together may be so many times what was promised, and a part."""


@dataclass(frozen=True)
class NewUpload:
    """What a client promises."""

    file: NewFile
    bytes: int
    mime_type: str


def create_upload(
    platform: Platform, caller: Caller, new: NewUpload, asked: Idempotency | None = None
) -> Upload:
    """Opens an upload for an hour. Raises InvalidRequest."""
    check_new_file(new.file)
    if not 1 <= new.bytes <= TOTAL_BYTES:
        raise InvalidRequest(
            f"bytes must be from 1 to {TOTAL_BYTES}.", param="bytes", code="invalid_value"
        )
    check_room(platform, new.bytes)
    upload = Upload(
        id=platform.ids.new(UPLOAD),
        project_id=caller.project_id,
        filename=new.file.filename,
        purpose=new.file.purpose,
        mime_type=new.mime_type,
        bytes=new.bytes,
        created_at=platform.now(),
        expires_at=platform.now() + OPEN_S,
        expires_after_s=new.file.expires_after_s,
    )
    with platform.database.write() as tx:

        def create() -> Upload:
            uploads.insert_upload(tx, upload, caller, platform.clock.now())
            return upload

        return once(tx, caller, asked, platform.now(), (Upload, create))


def check_open(platform: Platform, caller: Caller, upload_id: str) -> None:
    """Raises what `add_part` would raise for this upload, before its bytes are read."""
    with platform.database.read() as tx:
        _pending(platform, uploads.get_upload(tx, upload_id, caller.project_id), upload_id)


def add_part(
    platform: Platform,
    caller: Caller,
    upload_id: str,
    staged: StagedBlob,
    asked: Idempotency | None = None,
) -> UploadPart:
    """Keeps a part. The same bytes sent twice are two parts, unless the client says that it
    retries. Raises NotFound, InvalidRequest."""
    if staged.size_bytes == 0:
        raise InvalidRequest("The part is empty.", param="data", code="invalid_value")
    route = f"POST /v1/uploads/{upload_id}/parts"
    idempotency = replace(asked or Idempotency(""), body_sha256=staged.sha256, route=route)
    part = UploadPart(
        platform.ids.new(PART), upload_id, staged.size_bytes, staged.sha256, platform.now()
    )
    with platform.database.write() as tx:
        found = uploads.get_upload(tx, upload_id, caller.project_id, lock=True)
        upload = _pending(platform, found, upload_id)

        def create() -> UploadPart:
            if (
                uploads.received_bytes(tx, upload_id) + part.bytes
                > _ROOM * upload.bytes + PART_BYTES
            ):
                raise InvalidRequest(
                    f"The parts of {upload_id} hold far more than the {upload.bytes} bytes that "
                    "it was opened for.",
                    param="data",
                    code="invalid_value",
                    remedy="Cancel it and open one with the right number of bytes.",
                )
            holder = Holder("upload", upload_id)
            references.admit(tx, platform.blobs, staged, holder, part.created_at)
            uploads.insert_part(tx, part)
            return part

        return once(tx, caller, idempotency, platform.now(), (UploadPart, create))


def complete_upload(
    platform: Platform,
    caller: Caller,
    upload_id: str,
    part_ids: Sequence[str],
    md5: str | None = None,
    *,
    retried: bool = False,
) -> tuple[Upload, StoredFile]:
    """Makes the file of the parts, in the order of `part_ids`. A client that says it retries gets
    the file of an upload that is completed already. Raises NotFound, InvalidRequest."""
    with platform.database.read() as tx:
        upload = uploads.get_upload(tx, upload_id, caller.project_id)
        if upload is not None and retried and upload.file_id is not None:
            return upload, find_file(platform, tx, caller, upload.file_id)
        upload = _pending(platform, upload, upload_id)
        parts = _named_parts(upload, part_ids, uploads.get_parts(tx, upload_id, part_ids))
    reader = _PartsReader(platform, parts, check=md5 is not None)
    writer = platform.blobs.writer()
    try:
        for piece in reader.pieces():
            writer.write(piece)
        if md5 is not None and reader.md5 != md5.lower():
            raise InvalidRequest(
                f"The md5 of the parts is {reader.md5}, not the one that was given.",
                param="md5",
                code="checksum_mismatch",
                remedy="Send the part that was damaged again and complete with its new id.",
            )
        new = NewFile(upload.filename, upload.purpose, upload.expires_after_s)
        with ThreadPoolExecutor(1) as beside:
            synced = beside.submit(writer.finish)  # the disk works while lines are looked at
            file = check_bytes(platform, caller, writer.written, new)
            staged = synced.result()
        with platform.database.write() as tx:
            found = uploads.get_upload(tx, upload_id, caller.project_id, lock=True)
            _pending(platform, found, upload_id)
            add_file(platform, tx, caller, file, staged)
            uploads.end_upload(tx, upload_id, UploadStatus.COMPLETED, file.id)
            held = references.drop_references(tx, Holder("upload", upload_id))
    finally:
        writer.discard()
    references.remove_blobs(platform.database, platform.blobs, held)
    done = replace(upload, status=UploadStatus.COMPLETED, file_id=file.id)
    return done, file


def cancel_upload(platform: Platform, caller: Caller, upload_id: str) -> Upload:
    """Ends a pending upload and drops its bytes; cancelling again changes nothing. Raises
    NotFound, InvalidRequest."""
    with platform.database.read() as tx:
        upload = uploads.get_upload(tx, upload_id, caller.project_id)
    if upload is not None and upload.status is UploadStatus.CANCELLED:
        return upload
    return _end(platform, caller.project_id, upload_id, UploadStatus.CANCELLED)


def sweep_uploads(platform: Platform) -> int:
    """Ends the uploads whose time is over; says how many that were."""
    with platform.database.read() as tx:
        overdue = uploads.overdue_uploads(tx, platform.now())
    count = 0
    for upload_id, project_id in overdue:
        try:
            _end(platform, project_id, upload_id, UploadStatus.EXPIRED)
            count += 1
        except (NotFound, InvalidRequest):
            continue  # It was completed or cancelled in this very moment.
    return count


def _end(platform: Platform, project_id: str, upload_id: str, status: UploadStatus) -> Upload:
    with platform.database.write() as tx:
        found = uploads.get_upload(tx, upload_id, project_id, lock=True)
        upload = _pending(platform, found, upload_id, late=status is UploadStatus.EXPIRED)
        uploads.end_upload(tx, upload_id, status)
        held = references.drop_references(tx, Holder("upload", upload_id))
    references.remove_blobs(platform.database, platform.blobs, held)
    return replace(upload, status=status)


def _pending(
    platform: Platform, upload: Upload | None, upload_id: str, *, late: bool = False
) -> Upload:
    if upload is None:
        raise NotFound(f"No such Upload object: {upload_id[:100]}", param="upload_id")
    status = upload.status
    if status is UploadStatus.PENDING and not late and upload.expires_at <= platform.now():
        status = UploadStatus.EXPIRED
    if status is not UploadStatus.PENDING:
        made = f" as the file {upload.file_id}" if upload.file_id else ""
        raise InvalidRequest(
            f"The upload {upload_id} is {status.value}{made}.",
            param="upload_id",
            code="invalid_upload_status",
            remedy=None if upload.file_id else "Open a new one.",
        )
    return upload


def _named_parts(
    upload: Upload, part_ids: Sequence[str], found: Mapping[str, UploadPart]
) -> list[UploadPart]:
    if not 1 <= len(part_ids) <= MAX_PARTS or len(set(part_ids)) != len(part_ids):
        raise InvalidRequest(
            f"part_ids must name 1 to {MAX_PARTS} parts, each once.",
            param="part_ids",
            code="invalid_value",
        )
    for number, part_id in enumerate(part_ids):
        if part_id not in found:
            raise InvalidRequest(
                f"The upload {upload.id} has no part {part_id[:100]}.",
                param=f"part_ids[{number}]",
                code="invalid_value",
            )
    parts = [found[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in parts)
    if total != upload.bytes:
        raise InvalidRequest(
            f"The parts hold {total} bytes together, but the upload was opened for {upload.bytes}.",
            param="part_ids",
            code="invalid_value",
        )
    return parts


class _PartsReader:
    """The parts one after another, and the md5 of them all once they are read."""

    def __init__(self, platform: Platform, parts: Sequence[UploadPart], *, check: bool) -> None:
        self._platform = platform
        self._parts = parts
        self._check = check
        # A checksum of the wire, not a guard against anybody.
        self._digest = hashlib.md5(usedforsecurity=False)

    def pieces(self) -> Iterator[bytes]:
        # Both hashes let go of the interpreter: this one is computed while the store computes its
        # own of the same piece and writes it.
        with ThreadPoolExecutor(1) as beside:
            digested: Future[None] | None = None
            for part in self._parts:
                with self._platform.blobs.open(part.sha256) as handle:
                    while piece := handle.read(CHUNK_BYTES):
                        if self._check:
                            if digested is not None:
                                digested.result()
                            digested = beside.submit(self._digest.update, piece)
                        yield piece

    @property
    def md5(self) -> str:
        return self._digest.hexdigest()
