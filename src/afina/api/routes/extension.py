"""/v1/afina/...: what afina has beyond OpenAI's API. The commands of `afina` use these.

    GET    /v1/afina/usage            ?group_by=model,kind,day,key&start_time=&end_time=
    GET    /v1/afina/ledger           ?after=&limit=   entries, newest first
    GET    /v1/afina/keys             the project's keys, revoked ones too
    POST   /v1/afina/keys             {name, expires_after_s?, scopes?} -> the key with its `secret`
    DELETE /v1/afina/keys/{id}        revokes; -> the key
    GET    /v1/afina/bases            bases of this machine with capabilities, refused ones too
    GET    /v1/afina/models/{name}    a model with its parity record and the files of its tune
    GET    /v1/afina/files-of/{name}  ?file=  the bytes of one of those files
    POST   /v1/afina/jobs/estimate    the body of a job -> what it would take; nothing is created
    DELETE /v1/afina/jobs/{id}        deletes a job that is over; its models stay
    GET    /v1/afina/export           a tar file of all that the project owns

Money is `cost`, exact dollars as text, and `amount_pico`, whole picodollars.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from afina.api.answers import DeletedObject, answer, deleted, page
from afina.api.body import read_json
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After, JobCreate, NoQuery, job_request
from afina.domain.accounts import ApiKey
from afina.domain.codec import encode
from afina.domain.ledger import LedgerEntry, UsageSum
from afina.domain.methods import Extension
from afina.domain.prices import dollars
from afina.errors import InvalidRequest
from afina.service import bases, estimates, jobs, keys, models, usage
from afina.service.export import export_project
from afina.service.job_request import JobRequest, check_request
from afina.service.model_files import open_model_file, tune_files
from afina.service.refusals import LaxWire, Wire, parse

router = APIRouter(prefix="/v1/afina", tags=["afina"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
_GROUPS: Final = ("model", "kind", "day", "key")
_PIECE_BYTES: Final = 256 * 1024
Moment = Annotated[int, Field(ge=0, le=2**40)]


class UsageListQuery(LaxWire):
    """GET /v1/afina/usage."""

    group_by: Annotated[str, Field(max_length=100)] = "model,kind"
    start_time: Moment | None = None
    end_time: Moment | None = None


class LedgerQuery(LaxWire):
    """GET /v1/afina/ledger."""

    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class FileOfQuery(LaxWire):
    """Which file of a tune."""

    file: Annotated[str, Field(min_length=1, max_length=255)]


class KeyCreate(Wire):
    """POST /v1/afina/keys."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    expires_after_s: Annotated[int, Field(ge=60, le=315_360_000)] | None = None
    scopes: list[Annotated[str, Field(max_length=64)]] | None = None


@router.get("/usage", summary="Sums of the ledger", openapi_extra=documented(query=UsageListQuery))
def read_usage(
    call: Caller_, asked: Annotated[UsageListQuery, Depends(query(UsageListQuery))]
) -> Response:
    """Tokens and money in groups."""
    groups: list[usage.Grouping] = []
    for name in asked.group_by.split(","):
        if name not in _GROUPS or name in groups:
            raise InvalidRequest(
                f"Invalid value for 'group_by': supported values are {', '.join(_GROUPS)}, each "
                "once, with commas between them.",
                param="group_by",
                code="invalid_value",
            )
        groups.append(name)  # type: ignore[arg-type]
    wanted = usage.UsageQuery(asked.start_time, asked.end_time, tuple(groups))
    found = usage.summarize(call.platform, call.caller, wanted)
    return answer({"object": "list", "data": [_sum(group) for group in found]})


@router.get("/ledger", summary="Entries of the ledger", openapi_extra=documented(query=LedgerQuery))
def read_ledger(
    call: Caller_, asked: Annotated[LedgerQuery, Depends(query(LedgerQuery))]
) -> Response:
    """Newest first, one entry for each training and each answer."""
    found = usage.list_ledger(call.platform, call.caller, asked.after, asked.limit)
    return answer(page(found, _entry, ids=True))


@router.get("/keys", summary="List API keys", dependencies=[_NO_QUERY])
def list_keys(call: Caller_) -> Response:
    """The project's keys, newest first, revoked ones too; never their secrets."""
    found = keys.list_keys(call.platform, call.caller)
    return answer({"object": "list", "data": [_key(key) for key in found]})


@router.post(
    "/keys",
    summary="Make an API key",
    openapi_extra=documented(body=KeyCreate),
    dependencies=[_NO_QUERY],
)
async def create_key(call: Caller_) -> Response:
    """The answer holds the key's `secret`, which is never shown again."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(KeyCreate, body)
    key, secret = await to_thread.run_sync(
        keys.create_key,
        call.platform,
        call.caller,
        asked.name,
        asked.expires_after_s,
        None if asked.scopes is None else tuple(asked.scopes),
    )
    return answer(_key(key) | {"secret": secret})


@router.delete("/keys/{key_id}", summary="Revoke an API key", dependencies=[_NO_QUERY])
def revoke_key(call: Caller_, key_id: str) -> Response:
    """From now on the key opens nothing."""
    key = keys.revoke_key(call.platform, call.caller, key_id)
    call.parts.keyring.forget(key_id)
    return answer(_key(key))


@router.get("/bases", summary="Base models of this machine", dependencies=[_NO_QUERY])
def list_bases(call: Caller_) -> Response:
    """With what was measured of each, and why some were refused; `aliases` are other names."""
    aliases = call.parts.settings.model_aliases
    found = [
        encode(base) | {"aliases": sorted(a for a, b in aliases.items() if b == base.id)}
        for base in bases.list_bases(call.platform, admitted_only=False)
    ]
    return answer({"object": "list", "data": found})


@router.get("/models/{model:path}", summary="All about a model", dependencies=[_NO_QUERY])
def show_model(call: Caller_, model: str) -> Response:
    """Base, job, parity record and files of a model; of a base, its capabilities."""
    entry = models.get_model(call.platform, call.caller, model)
    shown: dict[str, Any] = {"id": entry.id, "owned_by": entry.owned_by}
    if entry.tuned is not None:
        tuned = encode(entry.tuned)
        del tuned["name"], tuned["project_id"]
        shown |= {"kind": "tuned"} | tuned | {"files": tune_files(call.platform, entry.tuned)}
    if entry.base is not None:
        base = encode(entry.base)
        shown |= {"kind": "base"} | base
    return answer(shown)


@router.get(
    "/files-of/{model:path}",
    summary="A file of a tuned model",
    openapi_extra=documented(query=FileOfQuery),
)
def download_model_file(
    call: Caller_, model: str, asked: Annotated[FileOfQuery, Depends(query(FileOfQuery))]
) -> Response:
    """The bytes of one of the files that the model names; or, made when asked for, `adapter.gguf`
    for llama.cpp, and the card as `README.md`, `card.json` and `card.html`."""
    entry = models.get_model(call.platform, call.caller, model)
    handle, size = open_model_file(call.platform, call.caller, entry, asked.file)
    return StreamingResponse(
        _pieces(handle),
        media_type="application/octet-stream",
        headers={"content-length": str(size)},
    )


@router.delete(
    "/jobs/{job_id}",
    summary="Delete a job that is over",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def delete_job(call: Caller_, job_id: str) -> Response:
    """Deletes the job, its checkpoints and results; its models stay."""
    jobs.delete_job(call.platform, call.caller, job_id)
    return answer(deleted(job_id, "fine_tuning.job"))


@router.post(
    "/jobs/estimate",
    summary="What a job would take",
    openapi_extra=documented(body=JobCreate),
    dependencies=[_NO_QUERY],
)
async def estimate_job(call: Caller_) -> Response:
    """Tokens, steps, time, memory and money of a job with this body, and how it would tune; refused
    as the job would be. Nothing is created or held."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = job_request(parse(JobCreate, body))
    check_request(asked)
    return answer(await to_thread.run_sync(_estimate, call, asked))


def _estimate(call: Call, asked: JobRequest) -> dict[str, Any]:
    found = estimates.estimate_job(call.platform, call.caller, asked)
    estimates.check_kind(found.kind, asked.method)
    shown: dict[str, Any] = encode(found.estimate)
    amount = shown.pop("cost_pico")
    resolved = {k: v for k, v in encode(found.resolved).items() if v is not None}
    return {
        "object": "afina.estimate",
        "model": found.base.id,
        "method": found.method,
        "tuning": Extension(found.tuning).shown()["tuning"],
        "hyperparameters": resolved,
        "errors": found.errors,
        "warnings": found.warnings,
        **shown,
        "amount_pico": amount,
        "cost": str(dollars(amount)),
    }


@router.get("/export", summary="All that the project owns", dependencies=[_NO_QUERY])
def export(call: Caller_) -> Response:
    """A tar file with files, jobs, events, models and the ledger."""
    folder = call.parts.settings.data / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    room = tempfile.TemporaryDirectory(dir=folder)
    target = Path(room.name) / "export.tar"
    try:
        export_project(call.platform, call.caller, target)
        handle = target.open("rb")
    finally:
        # The open handle keeps the bytes until they are sent; their name is gone already.
        room.cleanup()
    headers = {"content-disposition": 'attachment; filename="export.tar"'}
    return StreamingResponse(_pieces(handle), media_type="application/x-tar", headers=headers)


def _pieces(handle: Any) -> Iterator[bytes]:
    with handle:
        while piece := handle.read(_PIECE_BYTES):
            yield piece


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "afina.key",
        "name": key.name,
        "kind": key.kind.value,
        "scopes": key.scopes,
        "redacted": key.redacted,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _sum(found: UsageSum) -> dict[str, Any]:
    shown = dataclasses.asdict(found)
    shown["group"] = dict(found.group)
    shown["cost"] = str(dollars(found.amount_pico))
    return shown


def _entry(entry: LedgerEntry) -> dict[str, Any]:
    shown: dict[str, Any] = encode(entry)
    shown["object"] = "afina.ledger_entry"
    shown["cost"] = str(dollars(entry.amount_pico))
    return shown
