"""Files: upload, read, list, download and delete. The uploaded bytes are never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from afina.data.readers.disguises import no_text
from afina.data.uploads import upload_error
from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.files import Purpose, StoredFile
from afina.domain.jobs import Job
from afina.domain.pages import Page
from afina.errors import InvalidRequest, NotFound
from afina.service import run_folders
from afina.service.once import Idempotency, once
from afina.service.platform import Platform
from afina.service.room import check_room
from afina.store import batches, files, jobs, models, outbox, references
from afina.store.blobs import StagedBlob
from afina.store.database import Tx
from afina.store.files import FileQuery as FileQuery
from afina.store.references import Holder

MAX_LIST: Final = 10_000
EXPIRY_S: Final = range(3600, 2_592_001)
_UPLOADABLE: Final = (Purpose.FINE_TUNE, Purpose.USER_DATA, Purpose.BATCH)
_LINES: Final = (Purpose.FINE_TUNE, Purpose.BATCH)
"""Purposes whose files are JSONL."""
BATCH_KEPT_S: Final = 30 * 24 * 3600
"""Batch files expire after so long unless their owner says otherwise, as the wire has it."""
_MAX_NAME: Final = 512
_BY_ID: Final = "A file is named by the id that its upload answered, file-…, not by its name."
_CONVERT: Final = "Use `afina data convert` for CSV, Excel, JSON and Parquet files."


_ALL: Final = FileQuery()


@dataclass(frozen=True)
class NewFile:
    """What is said about bytes that become a file."""

    filename: str
    purpose: str
    expires_after_s: int | None = None


def upload_file(
    platform: Platform,
    caller: Caller,
    source: Iterable[bytes],
    filename: str,
    purpose: str,
    expires_after_s: int | None = None,
) -> StoredFile:
    """Stores bytes as a file of the caller's project. Raises InvalidRequest, TooLarge."""
    new = NewFile(filename, purpose, expires_after_s)
    check_new_file(new)
    check_room(platform)
    staged = platform.blobs.stage(source, platform.settings.max_upload_bytes)
    try:
        return keep_file(platform, caller, staged, new)
    finally:
        platform.blobs.discard(staged)


def check_new_file(new: NewFile) -> Purpose:
    """Raises InvalidRequest for a purpose, name or expiry that cannot be."""
    why = _purpose(new.purpose)
    _check_name(new.filename)
    if new.expires_after_s is not None and new.expires_after_s not in EXPIRY_S:
        raise InvalidRequest(
            f"expires_after.seconds must be from {EXPIRY_S.start} to {EXPIRY_S.stop - 1}.",
            param="expires_after.seconds",
            code="invalid_value",
        )
    return why


def keep_file(
    platform: Platform,
    caller: Caller,
    staged: StagedBlob,
    new: NewFile,
    asked: Idempotency | None = None,
) -> StoredFile:
    """Makes staged bytes a file; a client that says it retries gets the file that the same bytes,
    name and purpose made within ten minutes. Raises InvalidRequest."""
    file = check_bytes(platform, caller, staged, new)
    said = f"{new.filename}\0{new.purpose}\0{new.expires_after_s}\0{staged.sha256}"
    body = hashlib.sha256(said.encode()).hexdigest()
    idempotency = replace(asked or Idempotency(""), body_sha256=body, route="POST /v1/files")
    with platform.database.write() as tx:

        def create() -> StoredFile:
            add_file(platform, tx, caller, file, staged)
            return file

        kept = once(tx, caller, idempotency, platform.now(), (StoredFile, create))
        if files.get_file(tx, kept.id, caller.project_id) is None:
            # It was deleted between the two attempts: the retry makes it anew.
            return create()
        return kept


def check_bytes(platform: Platform, caller: Caller, staged: StagedBlob, new: NewFile) -> StoredFile:
    """The file that the bytes would become. Raises InvalidRequest for bytes that do not fit the
    purpose."""
    why = check_new_file(new)
    _check_first_bytes(staged, why)
    if why in _LINES:
        _check_lines(staged)
    now = platform.now()
    expires_after_s = new.expires_after_s
    if why is Purpose.BATCH and expires_after_s is None:
        expires_after_s = BATCH_KEPT_S
    return StoredFile(
        id=platform.ids.new(ids.FILE),
        project_id=caller.project_id,
        filename=new.filename,
        purpose=why,
        bytes=staged.size_bytes,
        sha256=staged.sha256,
        created_at=now,
        expires_at=None if expires_after_s is None else now + expires_after_s,
    )


def add_file(
    platform: Platform, tx: Tx, caller: Caller, file: StoredFile, staged: StagedBlob
) -> None:
    """Makes a file of staged bytes in the transaction that is open."""
    references.admit(tx, platform.blobs, staged, Holder("file", file.id), file.created_at)
    files.insert_file(tx, file, caller, platform.clock.now())


def get_file(platform: Platform, caller: Caller, file_id: str) -> StoredFile:
    """Raises NotFound, for a file whose time is over too."""
    with platform.database.read() as tx:
        return find_file(platform, tx, caller, file_id)


def find_file(platform: Platform, tx: Tx, caller: Caller, file_id: str) -> StoredFile:
    """`get_file` in the transaction that is open."""
    file = files.get_file(tx, file_id, caller.project_id)
    if file is None or (file.expires_at is not None and file.expires_at <= platform.now()):
        named = None if file_id.startswith(ids.FILE) else _BY_ID
        raise NotFound(f"No such File object: {file_id}", param="id", remedy=named)
    return file


def list_files(platform: Platform, caller: Caller, query: FileQuery = _ALL) -> Page[StoredFile]:
    """A page of the project's files. Raises InvalidRequest."""
    check_limit(query.limit, MAX_LIST)
    with platform.database.read() as tx:
        return files.list_files(tx, caller.project_id, query, platform.now())


def names_of(platform: Platform, caller: Caller, file_ids: Collection[str]) -> dict[str, str]:
    """The names of those of these files that are there, by id."""
    with platform.database.read() as tx:
        return files.names_of(tx, caller.project_id, file_ids)


def delete_file(platform: Platform, caller: Caller, file_id: str) -> None:
    """Deletes the file, and its bytes unless something else holds the same ones. Raises NotFound,
    and InvalidRequest while a job that is not over uses it."""
    with platform.database.write() as tx:
        file = find_file(platform, tx, caller, file_id)
        live = jobs.jobs_using_file(tx, file_id, live_only=True)
        if live:
            raise InvalidRequest(
                f"The file {file_id} is used by the fine-tuning job {live[0].id}, which is "
                f"{live[0].status.value}.",
                param="id",
                code="file_in_use",
                remedy="Cancel the job or wait until it is over.",
            )
        reader = batches.is_file_in_use(tx, file_id)
        if reader is not None:
            raise InvalidRequest(
                f"The file {file_id} is used by the batch {reader}, which is not over.",
                param="id",
                code="file_in_use",
                remedy="Cancel the batch or wait until it is over.",
            )
        over = drop_file(tx, file)
    remove_traces(platform, file, over)


def drop_file(tx: Tx, file: StoredFile) -> list[Job]:
    """Removes the file's row and its hold on the bytes; returns the jobs that were made with it.
    `remove_traces` follows after the commit."""
    files.delete_file_row(tx, file.id)
    references.drop_references(tx, Holder("file", file.id))
    return jobs.jobs_using_file(tx, file.id)


def remove_traces(platform: Platform, file: StoredFile, made_with_it: Iterable[Job]) -> int:
    """Removes the bytes of a file that is gone, and what was made of them on the way to a model;
    returns how many bytes of blobs that freed. Engines forget what they drafted from the rows: they
    read a model anew when it is asked."""
    jobs_over = list(made_with_it)
    for job in jobs_over:
        run_folders.remove_run(platform, job.id)
    freed = references.remove_blob(platform.database, platform.blobs, file.sha256)
    with platform.database.read() as tx:
        held = references.is_referred_to(tx, file.sha256)
    if not held:
        run_folders.remove_shards(platform, file.sha256)
        _forget_drafts(platform, jobs_over)
    return freed


def _forget_drafts(platform: Platform, made_with_it: Iterable[Job]) -> None:
    with platform.database.write() as tx:
        for job in made_with_it:
            for manifest in models.manifests_of_job(tx, job.id):
                item, now = platform.ids.new(ids.OUTBOX), platform.clock.now()
                outbox.put_item(tx, item, outbox.FORGET_ADAPTER, {"adapter": manifest}, now)


def open_file(platform: Platform, caller: Caller, file_id: str) -> tuple[StoredFile, BinaryIO]:
    """The file and an open handle on its bytes, which the caller closes. Raises NotFound."""
    with platform.database.read() as tx:
        file = find_file(platform, tx, caller, file_id)
        # Opened inside the transaction: a deletion after it leaves the handle whole.
        return file, platform.blobs.open(file.sha256)


def check_limit(limit: int, most: int) -> None:
    """Raises InvalidRequest unless 1 <= limit <= most."""
    if not 1 <= limit <= most:
        code = "integer_below_min_value" if limit < 1 else "integer_above_max_value"
        raise InvalidRequest(f"limit must be from 1 to {most}.", param="limit", code=code)


def _purpose(text: str) -> Purpose:
    for purpose in _UPLOADABLE:
        if purpose.value == text:
            return purpose
    allowed = ", ".join(purpose.value for purpose in _UPLOADABLE)
    raise InvalidRequest(
        f"The purpose {text[:64]!r} cannot be uploaded here.",
        param="purpose",
        code="invalid_value",
        remedy=f"Use one of: {allowed}.",
    )


def _check_name(filename: str) -> None:
    """The name is shown, never used as a path; it must be text of a sensible length."""
    if not filename or len(filename) > _MAX_NAME or not filename.isprintable():
        raise InvalidRequest(
            f"The file name must be 1 to {_MAX_NAME} printable characters.",
            param="file",
            code="invalid_value",
        )


def _check_first_bytes(staged: StagedBlob, purpose: Purpose) -> None:
    """Refuses at once what is plainly no JSONL."""
    if staged.size_bytes == 0:
        raise InvalidRequest("The file is empty.", param="file", code="invalid_file_format")
    if purpose not in _LINES:
        return
    head = staged.head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not head and staged.size_bytes == len(staged.head):
        raise InvalidRequest(
            "The file is empty: it holds nothing but blank lines.",
            param="file",
            code="invalid_file_format",
        )
    if head and (not head.startswith(b"{") or head.startswith(b"{\x00")):
        told = no_text(staged.path)
        what = "The file does not begin with one." if told is None else f"The file is {told.what}."
        raise InvalidRequest(
            "Expected file to have JSONL format, where every line is a valid JSON dictionary. "
            + what,
            param="file",
            code="invalid_file_format",
            remedy=_CONVERT if told is None or told.code == "file_other_name" else told.remedy,
        )


def _check_lines(staged: StagedBlob) -> None:
    """Refuses a line that is no JSON object; what rows must hold is for the job to say."""
    problem = upload_error(staged.path)
    if problem is not None:
        raise InvalidRequest(
            problem.message, param="file", code="invalid_file_format", remedy=problem.remedy
        )
