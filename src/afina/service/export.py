"""Export: all that a project owns, in a folder or tar file that needs no afina to be read.

files/<id>[.jsonl|.csv]   the bytes of every file      files.jsonl   what they are
models/<name>/            PEFT folders with their card models.jsonl
events/<job>.jsonl        oldest first                 jobs.jsonl, checkpoints.jsonl
ledger.jsonl, ledger.csv                               keys.jsonl    (never a secret)
manifest.json             every part with its size and sha256, written last
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar, cast

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.files import Purpose, StoredFile
from afina.domain.ledger import LedgerEntry
from afina.domain.manifests import Manifest
from afina.domain.models import TunedModel
from afina.domain.pages import Page
from afina.domain.prices import dollars
from afina.errors import Conflict, Internal, NotFound
from afina.service.card import card_of
from afina.service.card_readme import card_files
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
_LEDGER_COLUMNS: Final = [n for n in LedgerEntry.__dataclass_fields__ if n != "amount_pico"]
_ENDINGS: Final = {Purpose.FINE_TUNE: ".jsonl", Purpose.FINE_TUNE_RESULTS: ".json"}


@dataclass(frozen=True)
class ExportReport:
    """What was handed over."""

    path: Path
    files: int
    jobs: int
    models: int
    ledger_entries: int
    bytes: int


@dataclass
class _Owned:
    """What one transaction saw: the rows whose bytes follow, and how many there were."""

    files: list[StoredFile] = field(default_factory=list)
    models: Sequence[TunedModel] = ()
    jobs: int = 0
    ledger_entries: int = 0


def export_project(platform: Platform, caller: Caller, target: Path) -> ExportReport:
    """Writes to `target`: a tar file where the name ends with .tar, else a new or empty folder.
    The list of contents with sha256, `manifest.json`, is written last. Rows pass through a page at
    a time, so that a long life's ledger and events need no more memory than a short one's. Raises
    InvalidRequest, and Conflict if something is deleted meanwhile."""
    with open_parcel(target, platform.now) as parcel:
        with platform.database.read() as tx:
            owned = _Rows(platform, tx, caller, parcel).put()
        _put_files(platform, parcel, owned.files)
        _put_models(platform, parcel, caller, owned.models)
        _put_manifest(platform, parcel, caller)
        return ExportReport(
            path=target,
            files=len(owned.files),
            jobs=owned.jobs,
            models=len(owned.models),
            ledger_entries=owned.ledger_entries,
            bytes=parcel.size_bytes,
        )


@dataclass(frozen=True)
class _Rows:
    """Writes all rows of a project into a parcel, from one view of the database."""

    platform: Platform
    tx: Tx
    caller: Caller
    parcel: Parcel

    def put(self) -> _Owned:
        project = self.caller.project_id
        found = models.list_models(self.tx, project)
        # What another project lets this one use is not this one's to take away.
        owned = _Owned(models=[model for model in found if model.project_id == project])
        self._put_lines("files.jsonl", self._files(owned))
        self._put_jobs(owned)
        self._put_lines("models.jsonl", owned.models)
        self._put_ledger(owned)
        self._put_lines("keys.jsonl", accounts.list_keys(self.tx, project))
        return owned

    def _files(self, owned: _Owned) -> Iterator[StoredFile]:
        project, now = self.caller.project_id, self.platform.now()
        for file in _all(
            lambda after: files.list_files(
                self.tx, project, FileQuery(limit=_PAGE, order="asc", after=after), now
            )
        ):
            owned.files.append(file)
            yield file

    def _put_jobs(self, owned: _Owned) -> None:
        project = self.caller.project_id
        with _scratch() as job_lines, _scratch() as checkpoint_lines:
            for job in _all(lambda after: jobs.list_jobs(self.tx, project, after, _PAGE, None)):
                owned.jobs += 1
                _write_lines(job_lines, [job])
                kept = checkpoints.list_checkpoints(self.tx, job.id, None, _PAGE)
                _write_lines(checkpoint_lines, kept.data)
                self._put_lines(f"events/{job.id}.jsonl", events.all_events(self.tx, job.id))
            _put(self.parcel, "jobs.jsonl", job_lines)
            _put(self.parcel, "checkpoints.jsonl", checkpoint_lines)

    def _put_ledger(self, owned: _Owned) -> None:
        project = self.caller.project_id
        with _scratch() as lines, _scratch() as table:
            text = io.TextIOWrapper(table, encoding="utf-8", newline="")
            rows = csv.writer(text)
            rows.writerow([*_LEDGER_COLUMNS, "amount_usd"])
            for entry in _all(lambda after: ledger.list_entries(self.tx, project, after, _PAGE)):
                owned.ledger_entries += 1
                _write_lines(lines, [entry])
                values = encode(entry)
                money = f"{dollars(entry.amount_pico):f}"
                rows.writerow([*(values[name] for name in _LEDGER_COLUMNS), money])
            text.flush()
            text.detach()
            _put(self.parcel, "ledger.jsonl", lines)
            _put(self.parcel, "ledger.csv", table)

    def _put_lines(self, name: str, values: Iterable[object]) -> None:
        with _scratch() as file:
            _write_lines(file, values)
            _put(self.parcel, name, file)


def _all(read: Callable[[str | None], Page[_T]]) -> Iterator[_T]:
    """The items of all pages, a page in memory at a time."""
    after: str | None = None
    while True:
        page = read(after)
        yield from page.data
        if not page.has_more:
            return
        after = page.data[-1].id


def _write_lines(file: BinaryIO, values: Iterable[object]) -> None:
    for value in values:
        file.write(json.dumps(encode(value), ensure_ascii=False).encode() + b"\n")


def _put_files(platform: Platform, parcel: Parcel, found: Sequence[StoredFile]) -> None:
    for file in found:
        ending = ".csv" if file.is_table else _ENDINGS.get(file.purpose, "")
        _put_blob(platform, parcel, f"files/{file.id}{ending}", file.sha256)


def _put_models(
    platform: Platform, parcel: Parcel, caller: Caller, found: Sequence[TunedModel]
) -> None:
    for model in found:
        # Colons are no good in the names of folders elsewhere.
        folder = f"models/{model.name.replace(':', '--')}"
        _put_blob(platform, parcel, f"{folder}/tune.json", model.manifest)
        manifest = Manifest.from_bytes(platform.blobs.read(model.manifest))
        for name, sha256 in sorted(manifest.files.items()):
            _put_blob(platform, parcel, f"{folder}/{name}", sha256)
        try:
            card = card_of(platform, caller, model.name)
        except NotFound:
            raise _deleted(folder) from None
        for name, text in card_files(card).items():
            parcel.add(f"{folder}/{name}", io.BytesIO(text))


def _put_blob(platform: Platform, parcel: Parcel, name: str, sha256: str) -> None:
    try:
        with platform.blobs.open(sha256) as file:
            parcel.add(name, file)
    except Internal:
        raise _deleted(name) from None


def _deleted(name: str) -> Conflict:
    return Conflict(
        f"What belongs to {name} was deleted during the export.", remedy="Run it again."
    )


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


def _put(parcel: Parcel, name: str, file: BinaryIO) -> None:
    file.seek(0)
    parcel.add(name, file)


@contextmanager
def _scratch() -> Iterator[BinaryIO]:
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
        yield cast(BinaryIO, file)
