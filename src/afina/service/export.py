"""Export: all that a project owns, in a folder or tar file that needs no afina to be read.

files/<id>[.jsonl|.csv]   the bytes of every file      files.jsonl   what they are
models/<name>/            PEFT folders                 models.jsonl
events/<job>.jsonl        oldest first                 jobs.jsonl, checkpoints.jsonl
ledger.jsonl, ledger.csv                               keys.jsonl    (never a secret)
manifest.json             every part with its size and sha256, written last
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar, cast

from afina.domain.accounts import ApiKey, Caller
from afina.domain.codec import encode
from afina.domain.events import JobEvent
from afina.domain.files import Purpose, StoredFile
from afina.domain.jobs import Job, JobCheckpoint
from afina.domain.ledger import LedgerEntry
from afina.domain.manifests import Manifest
from afina.domain.models import TunedModel
from afina.domain.pages import Page
from afina.domain.prices import dollars
from afina.errors import Conflict, Internal
from afina.service.parcels import Parcel, open_parcel
from afina.service.platform import Platform
from afina.store import accounts, checkpoints, events, files, jobs, ledger, models
from afina.store.database import Tx
from afina.store.files import FileQuery


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_T = TypeVar("_T", bound=_Named)
_PAGE: Final = 1000
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
_ENDINGS: Final = {Purpose.FINE_TUNE: ".jsonl", Purpose.FINE_TUNE_RESULTS: ".csv"}


@dataclass(frozen=True)
class ExportReport:
    """What was handed over."""

    path: Path
    files: int
    jobs: int
    models: int
    ledger_entries: int
    bytes: int


@dataclass(frozen=True)
class _Owned:
    """All rows of a project, as one transaction saw them."""

    files: Sequence[StoredFile]
    jobs: Sequence[Job]
    events: dict[str, Sequence[JobEvent]]
    checkpoints: Sequence[JobCheckpoint]
    models: Sequence[TunedModel]
    ledger: Sequence[LedgerEntry]
    keys: Sequence[ApiKey]


def export_project(platform: Platform, caller: Caller, target: Path) -> ExportReport:
    """Writes to `target`: a tar file where the name ends with .tar, else a new or empty folder.
    The list of contents with sha256, `manifest.json`, is written last. Raises InvalidRequest, and
    Conflict if something is deleted meanwhile."""
    with open_parcel(target, platform.now) as parcel:
        with platform.database.read() as tx:
            owned = _read_all(platform, tx, caller)
        _put_rows(parcel, owned)
        _put_files(platform, parcel, owned.files)
        _put_models(platform, parcel, owned.models)
        _put_manifest(platform, parcel, caller)
        return ExportReport(
            path=target,
            files=len(owned.files),
            jobs=len(owned.jobs),
            models=len(owned.models),
            ledger_entries=len(owned.ledger),
            bytes=parcel.size_bytes,
        )


def _read_all(platform: Platform, tx: Tx, caller: Caller) -> _Owned:
    project, now = caller.project_id, platform.now()

    def file_page(after: str | None) -> Page[StoredFile]:
        return files.list_files(tx, project, FileQuery(limit=_PAGE, order="asc", after=after), now)

    def job_page(after: str | None) -> Page[Job]:
        return jobs.list_jobs(tx, project, after, _PAGE, None)

    def ledger_page(after: str | None) -> Page[LedgerEntry]:
        return ledger.list_entries(tx, project, after, _PAGE)

    all_jobs = [job for page in _pages(job_page) for job in page.data]
    return _Owned(
        files=[file for page in _pages(file_page) for file in page.data],
        jobs=all_jobs,
        events={job.id: events.all_events(tx, job.id) for job in all_jobs},
        checkpoints=[
            checkpoint
            for job in all_jobs
            for checkpoint in checkpoints.list_checkpoints(tx, job.id, None, _PAGE).data
        ],
        models=models.list_models(tx, project),
        ledger=[entry for page in _pages(ledger_page) for entry in page.data],
        keys=accounts.list_keys(tx, project),
    )


def _pages(read: Callable[[str | None], Page[_T]]) -> Iterator[Page[_T]]:
    after: str | None = None
    while True:
        page = read(after)
        yield page
        if not page.has_more:
            return
        after = page.data[-1].id


def _put_rows(parcel: Parcel, owned: _Owned) -> None:
    for name, values in (
        ("files.jsonl", owned.files),
        ("jobs.jsonl", owned.jobs),
        ("checkpoints.jsonl", owned.checkpoints),
        ("models.jsonl", owned.models),
        ("ledger.jsonl", owned.ledger),
        ("keys.jsonl", owned.keys),
        *((f"events/{job_id}.jsonl", found) for job_id, found in owned.events.items()),
    ):
        with _scratch() as file:
            for value in values:
                line = json.dumps(encode(value), ensure_ascii=False)
                file.write(line.encode() + b"\n")
            _put(parcel, name, file)
    with _scratch() as file:
        _write_csv(file, owned.ledger)
        _put(parcel, "ledger.csv", file)


def _put_files(platform: Platform, parcel: Parcel, found: Sequence[StoredFile]) -> None:
    for file in found:
        _put_blob(platform, parcel, f"files/{file.id}{_ENDINGS.get(file.purpose, '')}", file.sha256)


def _put_models(platform: Platform, parcel: Parcel, found: Sequence[TunedModel]) -> None:
    for model in found:
        # Colons are no good in the names of folders elsewhere.
        folder = f"models/{model.name.replace(':', '--')}"
        _put_blob(platform, parcel, f"{folder}/tune.json", model.manifest)
        manifest = Manifest.from_bytes(platform.blobs.read(model.manifest))
        for name, sha256 in sorted(manifest.files.items()):
            _put_blob(platform, parcel, f"{folder}/{name}", sha256)


def _put_blob(platform: Platform, parcel: Parcel, name: str, sha256: str) -> None:
    try:
        with platform.blobs.open(sha256) as file:
            parcel.add(name, file)
    except Internal:
        raise Conflict(
            f"What belongs to {name} was deleted during the export.", remedy="Run it again."
        ) from None


def _put_manifest(platform: Platform, parcel: Parcel, caller: Caller) -> None:
    manifest = {
        "format": 1,
        "project": caller.project_id,
        "organization": caller.organization_id,
        "exported_at": platform.now(),
        "contents": parcel.contents,
    }
    raw = json.dumps(manifest, indent=1).encode()
    parcel.sink.put("manifest.json", io.BytesIO(raw), len(raw))


def _write_csv(file: BinaryIO, entries: Sequence[LedgerEntry]) -> None:
    names = [n for n in LedgerEntry.__dataclass_fields__ if n != "amount_pico"]
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow([*names, "amount_usd"])
    for entry in entries:
        values = encode(entry)
        rows.writerow([*(values[n] for n in names), f"{dollars(entry.amount_pico):f}"])
    text.flush()
    text.detach()


def _put(parcel: Parcel, name: str, file: BinaryIO) -> None:
    file.seek(0)
    parcel.add(name, file)


@contextmanager
def _scratch() -> Iterator[BinaryIO]:
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
        yield cast(BinaryIO, file)
