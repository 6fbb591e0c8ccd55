"""Backup and restore of a whole data directory, while the platform runs.

    afina.db            a copy of one moment        blobs/…   all that it refers to
    runs/<job>/…        of jobs that are not over   api-key, afina.toml
    cards/<job>.json    of jobs that are over, for the cards of their models
    backup.json         every part with its size and sha256, the base models needed; written last

The database is copied first, and blobs never change, so a part that is missing was deleted in
between: then the backup says so and is made again. Restoring checks every byte before the new
directory can be used, and brings an older schema up to date.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from afina import __version__
from afina.domain.jobs import JobStatus
from afina.errors import BadSettings, Conflict, DataUnreadable, Internal, InvalidRequest
from afina.service import bases, card_facts
from afina.service.parcels import Parcel, open_parcel
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import jobs, models, snapshots
from afina.store.blobs import LocalBlobs
from afina.store.database import Database

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
_DATABASE: Final = "afina.db"
_PLAIN: Final = ("api-key", "afina.toml")
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class BackupReport:
    """What was copied, and the base models that it needs."""

    path: Path
    parts: int
    bytes: int
    bases: tuple[str, ...]


def backup(platform: Platform, target: Path) -> BackupReport:
    """Writes to `target`: a tar file where the name ends with .tar, else a new or empty folder.
    Raises InvalidRequest, Conflict."""
    with open_parcel(target, platform.now) as parcel:
        database = platform.settings.data / platform.ids.new(".backup-", 8)
        try:
            snapshots.snapshot(platform.database, database)
            with database.open("rb") as file:
                parcel.add(_DATABASE, file)
            _put_blobs(platform, parcel, database)
        finally:
            database.unlink(missing_ok=True)
        _put_runs(platform, parcel)
        _put_cards(platform, parcel)
        for name in _PLAIN:
            path = platform.settings.data / name
            if path.is_file():
                with path.open("rb") as file:
                    parcel.add(name, file)
        needed = tuple(base.id for base in bases.list_bases(platform))
        manifest = {
            "format": FORMAT,
            "afina": __version__,
            "schema": platform.database.schema_revision(),
            "made_at": platform.now(),
            "bases": needed,
            "contents": parcel.contents,
        }
        _put_manifest(parcel, manifest)
        report = BackupReport(target, len(parcel.contents), parcel.size_bytes, needed)
    # It holds keys and training data: for its owner alone.
    target.chmod(0o600 if target.is_file() else 0o700)
    return report


def restore(source: Path, settings: Settings) -> BackupReport:
    """Makes the data directory of `settings` from a backup; it must be new or hold nothing but
    base models. Raises InvalidRequest, DataUnreadable for a backup that is not whole."""
    data = settings.data
    there = list(data.iterdir()) if data.is_dir() else []
    taken = [path.name for path in there if path.name not in ("models", "afina.toml")]
    if taken:
        raise InvalidRequest(
            f"{data} is there already and holds {sorted(taken)[0]}.",
            remedy="Restore into a new directory, then move it to its place.",
        )
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _open_backup(source) as parts:
        manifest = _manifest(source, parts)
        size = 0
        # The database comes last: a directory without one is not taken for whole.
        contents = sorted(manifest["contents"], key=lambda part: part["path"] == _DATABASE)
        for part in contents:
            size += _take(parts, data, part)
    _check(settings)
    return BackupReport(data, len(contents), size, tuple(manifest["bases"]))


def _put_blobs(platform: Platform, parcel: Parcel, database: Path) -> None:
    copy = Database.open(f"sqlite:///{database}")
    try:
        with copy.read() as tx:
            for sha256 in snapshots.referred_blobs(tx):
                try:
                    with platform.blobs.open(sha256) as file:
                        parcel.add(f"blobs/sha256/{sha256[:2]}/{sha256[2:]}", file)
                except Internal:
                    raise Conflict(
                        "Something was deleted during the backup.", remedy="Run it again."
                    ) from None
    finally:
        copy.close()
        for ending in ("-wal", "-shm"):
            Path(f"{database}{ending}").unlink(missing_ok=True)


def _put_cards(platform: Platform, parcel: Parcel) -> None:
    """What the cards of models say of data: their runs are not copied."""
    with platform.database.read() as tx:
        for job_id in models.jobs_with_models(tx):
            card_facts.keep_facts(platform, job_id)
    folder = platform.settings.data / card_facts.FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with path.open("rb") as file:
            parcel.add(f"{card_facts.FOLDER}/{path.name}", file)


def _put_runs(platform: Platform, parcel: Parcel) -> None:
    """Run directories of jobs that will go on; what vanishes meanwhile is done for."""
    live = [status for status in JobStatus if not status.is_terminal]
    with platform.database.read() as tx:
        found = jobs.jobs_in(tx, live)
    for job in found:
        root = platform.settings.runs / job.id
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                try:
                    with path.open("rb") as file:
                        parcel.add(path.relative_to(platform.settings.data).as_posix(), file)
                except FileNotFoundError:
                    continue


def _put_manifest(parcel: Parcel, manifest: dict[str, Any]) -> None:
    raw = json.dumps(manifest, indent=1).encode()
    parcel.sink.put(MANIFEST, io.BytesIO(raw), len(raw))


class _Parts:
    """Reads parts of a backup by name."""

    def __init__(self, folder: Path | None, tar: tarfile.TarFile | None) -> None:
        self._folder = folder
        self._tar = tar

    def open(self, name: str) -> BinaryIO:
        """Raises KeyError or OSError where the part is missing."""
        if self._folder is not None:
            return (self._folder / name).open("rb")
        assert self._tar is not None
        found = self._tar.extractfile(name)
        if found is None:
            raise KeyError(name)
        return found  # type: ignore[return-value]


@contextmanager
def _open_backup(source: Path) -> Iterator[_Parts]:
    if source.is_dir():
        yield _Parts(source, None)
        return
    try:
        with tarfile.open(source, "r:") as tar:
            yield _Parts(None, tar)
    except (OSError, tarfile.TarError) as error:
        raise DataUnreadable(f"{source} cannot be read as a backup: {error}.") from None


def _manifest(source: Path, parts: _Parts) -> dict[str, Any]:
    try:
        with parts.open(MANIFEST) as file:
            manifest: dict[str, Any] = json.loads(file.read())
    except (KeyError, OSError, ValueError):
        raise DataUnreadable(
            f"{source} is no whole backup: it has no {MANIFEST}.",
            remedy="A backup that broke off has none; make it again.",
        ) from None
    if manifest.get("format") != FORMAT:
        raise DataUnreadable(f"{source} is a backup of a newer afina.", remedy="Install that one.")
    return manifest


def _take(parts: _Parts, data: Path, part: dict[str, Any]) -> int:
    """Copies a part to its place and checks it."""
    name = str(part["path"])
    target = (data / name).resolve()
    if not target.is_relative_to(data.resolve()):
        raise DataUnreadable(f"The backup names a part outside of it: {name[:200]}.")
    if name in _PLAIN and target.exists():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    staged = target.with_name(target.name + ".new")
    try:
        with parts.open(name) as source, staged.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
    except (KeyError, FileNotFoundError):
        raise DataUnreadable(f"The backup's part {name} is missing.") from None
    if digest.hexdigest() != part["sha256"]:
        staged.unlink()
        raise DataUnreadable(f"The backup's part {name} is damaged: its sha256 differs.")
    staged.chmod(0o600)
    staged.replace(target)
    return size


def _check(settings: Settings) -> None:
    """Brings the schema up to date, and looks for every blob that is referred to."""
    database = Database.open(settings.database_url)
    try:
        database.migrate()
        blobs = LocalBlobs(settings.blobs)
        with database.read() as tx:
            missing = [s for s in snapshots.referred_blobs(tx) if not blobs.path(s).exists()]
    finally:
        database.close()
    if missing:
        shutil.rmtree(settings.blobs, ignore_errors=True)
        raise BadSettings(f"The backup lacks {len(missing)} blobs that its database refers to.")
