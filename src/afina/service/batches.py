"""Batches: create, read, list, cancel; and the steps that the worker takes with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from afina.domain.accounts import Caller
from afina.domain.batches import KNOWN_ENDPOINTS, MAX_BYTES, WINDOW_S, Batch, BatchStatus
from afina.domain.files import Purpose, StoredFile
from afina.domain.ids import BATCH, FILE
from afina.domain.pages import Page
from afina.errors import InvalidRequest, NotFound, UnsupportedField
from afina.service import webhooks
from afina.service.files import EXPIRY_S, add_file, check_limit, find_file
from afina.service.job_request import check_metadata
from afina.service.once import Idempotency, once
from afina.service.platform import Platform
from afina.store import batches
from afina.store.blobs import StagedBlob
from afina.store.database import Tx

OFFERED: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/responses",
)
"""Endpoints whose requests a batch may hold."""
MAX_LIST: Final = 100
_TIMES: Final = {
    BatchStatus.FAILED: "failed_at",
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.EXPIRED: "expired_at",
    BatchStatus.CANCELLED: "cancelled_at",
}
_HELD: Final = (
    BatchStatus.VALIDATING,
    BatchStatus.IN_PROGRESS,
    BatchStatus.FINALIZING,
    BatchStatus.CANCELLING,
)


@dataclass(frozen=True)
class NewBatch:
    """What a client asks for."""

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None = None
    output_expires_after_s: int | None = None


def create_batch(
    platform: Platform, caller: Caller, new: NewBatch, asked: Idempotency | None = None
) -> Batch:
    """Creates a batch for the worker. Raises InvalidRequest, UnsupportedField, NotFound."""
    check_endpoint(new.endpoint)
    check_metadata(new.metadata)
    expiry = new.output_expires_after_s
    if expiry is not None and expiry not in EXPIRY_S:
        raise InvalidRequest(
            f"output_expires_after.seconds must be from {EXPIRY_S.start} to {EXPIRY_S.stop - 1}.",
            param="output_expires_after.seconds",
            code="invalid_value",
        )
    now = platform.now()
    batch = Batch(
        id=platform.ids.new(BATCH),
        project_id=caller.project_id,
        organization_id=caller.organization_id,
        key_id=caller.key_id,
        created_at=now,
        expires_at=now + WINDOW_S,
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        metadata=None if new.metadata is None else dict(new.metadata),
        output_expires_after_s=expiry,
    )
    with platform.database.write() as tx:

        def create() -> Batch:
            _check_input(platform, tx, caller, new.input_file_id)
            batches.insert_batch(tx, batch, platform.clock.now())
            return batch

        return once(tx, caller, asked, now, (Batch, create))


def get_batch(platform: Platform, caller: Caller, id: str) -> Batch:
    """Raises NotFound."""
    with platform.database.read() as tx:
        return _find(tx, caller, id)


def list_batches(
    platform: Platform, caller: Caller, after: str | None = None, limit: int = 20
) -> Page[Batch]:
    """Newest first."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        return batches.list_batches(tx, caller.project_id, after, limit)


def cancel_batch(platform: Platform, caller: Caller, id: str) -> Batch:
    """The worker ends it soon and keeps what is answered already. Raises NotFound, and
    InvalidRequest for a batch that is over."""
    with platform.database.write() as tx:
        batch = _find(tx, caller, id)
        if batch.status is BatchStatus.CANCELLING:
            return batch
        cancelling = batches.ask_to_cancel(tx, id, caller.project_id, platform.now())
        if cancelling is None:
            raise InvalidRequest(
                f"The batch {id} is {batch.status.value} and cannot be cancelled.",
                code="invalid_value",
            )
    return cancelling


def check_endpoint(endpoint: str) -> None:
    """Raises UnsupportedField for one that the wire API knows and afina has not, InvalidRequest
    for any other."""
    if endpoint in OFFERED:
        return
    kind = UnsupportedField if endpoint in KNOWN_ENDPOINTS else InvalidRequest
    raise kind(
        f"Batches for {endpoint[:64]!r} are not offered: use one of {', '.join(OFFERED)}.",
        param="endpoint",
        code="unsupported_value" if endpoint in KNOWN_ENDPOINTS else "invalid_value",
    )


def fail_batch(platform: Platform, batch: Batch, errors: Sequence[Mapping[str, Any]]) -> Batch:
    """Ends a batch whose input cannot be used; `errors` name its lines."""
    return _end(platform, batch, BatchStatus.FAILED, errors=tuple(errors))


def begin_batch(platform: Platform, batch: Batch, total: int, model: str | None) -> Batch:
    """From `validating` to `in_progress`. Raises StaleFence, IllegalTransition."""
    with platform.database.write() as tx:
        return batches.move_batch(
            tx,
            batch,
            [BatchStatus.VALIDATING],
            BatchStatus.IN_PROGRESS,
            total=total,
            model=model,
            in_progress_at=platform.now(),
        )


def finish_batch(platform: Platform, batch: Batch, outcome: BatchStatus) -> Batch:
    """Makes the output and error files of the results and ends the batch, in one transaction.
    Raises StaleFence."""
    with platform.database.write() as tx:
        if outcome is BatchStatus.COMPLETED:
            move = partial(batches.move_batch, tx, batch, list(_HELD))
            batch = move(BatchStatus.FINALIZING, finalizing_at=platform.now())
    usage = _Usage()
    staged = {
        ok: platform.blobs.stage(_lines(platform, batch.id, usage, ok=ok)) for ok in (True, False)
    }
    try:
        return _end(platform, batch, outcome, staged=staged, usage=usage.total)
    finally:
        for blob in staged.values():
            platform.blobs.discard(blob)


def _end(
    platform: Platform,
    batch: Batch,
    outcome: BatchStatus,
    staged: Mapping[bool, StagedBlob] | None = None,
    **changes: Any,
) -> Batch:
    caller = Caller(batch.project_id, batch.key_id or "", batch.organization_id)
    with platform.database.write() as tx:
        files = {}
        for ok, blob in (staged or {}).items():
            if blob.size_bytes:
                file = _output_file(platform, batch, blob, ok=ok)
                add_file(platform, tx, caller, file, blob)
                files["output_file_id" if ok else "error_file_id"] = file.id
        changes |= {_TIMES[outcome]: platform.now(), **files}
        ended = batches.move_batch(tx, batch, list(_HELD), outcome, **changes)
        batches.drop_results(tx, batch.id)
        webhooks.emit(platform, tx, batch.project_id, f"batch.{outcome.value}", batch.id)
    return ended


def _output_file(platform: Platform, batch: Batch, blob: StagedBlob, *, ok: bool) -> StoredFile:
    now, expiry = platform.now(), batch.output_expires_after_s
    return StoredFile(
        id=platform.ids.new(FILE),
        project_id=batch.project_id,
        filename=f"{batch.id}_{'output' if ok else 'error'}.jsonl",
        purpose=Purpose.BATCH_OUTPUT,
        bytes=blob.size_bytes,
        sha256=blob.sha256,
        created_at=now,
        expires_at=None if expiry is None else now + expiry,
    )


class _Usage:
    """The sum of what the answers say they used."""

    def __init__(self) -> None:
        self.total = {"input": 0, "cached": 0, "output": 0, "reasoning": 0}

    def add(self, line: str) -> None:
        body = json.loads(line)["response"]["body"]
        used = body.get("usage") or {}
        inside = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
        outside = used.get("completion_tokens_details") or used.get("output_tokens_details") or {}
        self.total["input"] += used.get("prompt_tokens", used.get("input_tokens", 0))
        self.total["output"] += used.get("completion_tokens", used.get("output_tokens", 0))
        self.total["cached"] += inside.get("cached_tokens") or 0
        self.total["reasoning"] += outside.get("reasoning_tokens") or 0


def _lines(platform: Platform, batch_id: str, usage: _Usage, *, ok: bool) -> Iterator[bytes]:
    with platform.database.read() as tx:
        for result in batches.read_results(tx, batch_id):
            if result.ok is ok:
                if ok:
                    usage.add(result.result)
                yield result.result.encode() + b"\n"


def _check_input(platform: Platform, tx: Tx, caller: Caller, file_id: str) -> None:
    try:
        file = find_file(platform, tx, caller, file_id)
    except NotFound as error:
        raise NotFound(error.message, param="input_file_id") from None
    if file.purpose is not Purpose.BATCH:
        raise InvalidRequest(
            f"The file {file_id} has the purpose {file.purpose.value!r}, not 'batch'.",
            param="input_file_id",
            code="invalid_value",
            remedy="Upload it again with the purpose batch.",
        )
    if file.bytes > MAX_BYTES:
        raise InvalidRequest(
            f"The file {file_id} has {file.bytes} bytes; a batch may have {MAX_BYTES}.",
            param="input_file_id",
            code="invalid_value",
            remedy="Split it into several batches.",
        )


def _find(tx: Tx, caller: Caller, id: str) -> Batch:
    batch = batches.get_batch(tx, id, caller.project_id)
    if batch is None:
        raise NotFound(f"No such Batch object: {id[:100]}", param="batch_id")
    return batch
