"""The disk of the data directory: what holds it, and making room in a fixed order.

    orphans      blobs that nobody refers to
    shards       tokenised rows that no job needs any more: made again when a job asks for them
    checkpoints  of jobs that are over; what they brought lies in blobs
    tunes        that nobody has asked for days, only where a number of days is given

Nothing is removed that something refers to: not what a job needs that is not over, nor a model with
an alias, with a permission, or that a job began with. Where blobs live in a bucket, what counts and
goes is their copies here, and orphans of both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from afina.domain.accounts import Caller
from afina.domain.manifests import Manifest
from afina.domain.runs import CHECKPOINTS
from afina.domain.sayings import say
from afina.errors import AfinaError
from afina.service import run_folders
from afina.service.audit import note
from afina.service.jobs import event
from afina.service.models import delete_model
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import disk, events, jobs, references
from afina.store.blobs import LocalBlobs
from afina.store.database import Tx
from afina.store.meter import size_of

Kind = Literal["orphans", "shards", "checkpoints", "tunes"]
ORDER: Final[tuple[Kind, ...]] = ("orphans", "shards", "checkpoints", "tunes")
GRACE_S: Final = 900.0
"""What is younger may belong to something that is just being made."""
AIM: Final = 0.9
"""Of the budget: a little room is made, so that the next upload is not refused again."""
_DAY_S: Final = 86_400
_HOLDERS: Final = {"file": "files", "model": "tunes", "job": "tunes", "upload": "files"}


@dataclass(frozen=True)
class Removal:
    """One thing that may go: what it is called, and its bytes."""

    kind: Kind
    name: str
    bytes: int


@dataclass(frozen=True)
class Usage:
    """Bytes in the data directory by kind, and of its disk."""

    kinds: dict[str, int]
    kept_answers: int
    """About how much of the database is stored completions and responses."""
    total: int
    free: int
    max_bytes: int | None
    min_free_bytes: int


def measure(settings: Settings, tx: Tx | None) -> Usage:
    """What holds the data directory. Without a transaction, blobs are of one kind."""
    data = settings.data
    kinds = {
        "base models": size_of(settings.models) + size_of(settings.encoders),
        "shards": size_of(settings.shards),
        **_runs(settings),
        **_blobs(settings, tx),
        "drafts": size_of(data / "drafts"),
        "database": sum(size_of(path) for path in data.glob("afina.db*")),
    }
    kinds["logs"] += size_of(data / "logs")
    total = size_of(data)
    kinds["other"] = max(0, total - sum(kinds.values()))
    return Usage(
        kinds=kinds,
        kept_answers=0 if tx is None else disk.kept_answers_bytes(tx),
        total=total,
        free=shutil.disk_usage(data).free,
        max_bytes=settings.disk.max_bytes,
        min_free_bytes=settings.disk.min_free_bytes,
    )


def _runs(settings: Settings) -> dict[str, int]:
    checkpoints = logs = total = 0
    for run in settings.runs.iterdir() if settings.runs.is_dir() else ():
        checkpoints += size_of(run / CHECKPOINTS)
        logs += sum(size_of(attempt) for attempt in run.glob("attempt-*"))
        total += size_of(run)
    return {"checkpoints": checkpoints, "logs": logs, "runs": total - checkpoints - logs}


def _blobs(settings: Settings, tx: Tx | None) -> dict[str, int]:
    if tx is None:
        return {"blobs": size_of(settings.blobs)}
    sizes = {"files": 0, "tunes": 0, "orphaned blobs": 0}
    held, local = disk.holders(tx), LocalBlobs(settings.blobs)
    for sha256, _ in local.stored():
        sizes[_HOLDERS.get(held.get(sha256, ""), "orphaned blobs")] += size_of(local.path(sha256))
    return sizes


def plan(platform: Platform, tunes_unused_days: int | None) -> Iterator[Removal]:
    """All that may go, in the order in which it goes."""
    before = platform.clock.now() - GRACE_S
    yield from _orphans(platform, before)
    with platform.database.read() as tx:
        needed, shards = disk.needed_jobs(tx), disk.needed_shards(tx)
    for folder in _folders(platform.settings.shards):
        if folder.name not in shards and folder.stat().st_mtime < before:
            yield Removal("shards", folder.name, size_of(folder))
    for run in _folders(platform.settings.runs):
        if run.name not in needed and (run / CHECKPOINTS).is_dir():
            yield Removal("checkpoints", run.name, size_of(run / CHECKPOINTS))
    if tunes_unused_days is not None:
        with platform.database.read() as tx:
            idle = disk.idle_tunes(tx, platform.now() - tunes_unused_days * _DAY_S)
            found = [Removal("tunes", t.name, _tune_bytes(platform, tx, t.name)) for t in idle]
        yield from found


def clean(
    platform: Platform,
    tunes_unused_days: int | None,
    enough: Callable[[int], bool] = lambda _: False,
    *,
    dry_run: bool = False,
) -> list[Removal]:
    """Removes what `plan` says until `enough` of the bytes freed so far; returns what went, or
    would go."""
    done: list[Removal] = []
    freed = 0
    for removal in plan(platform, tunes_unused_days):
        if enough(freed):
            break
        if dry_run or _remove(platform, removal):
            done.append(removal)
            freed += removal.bytes
    if done and not dry_run:
        platform.meter.forget()
        _tell(platform, done)
    return done


def keep_within(platform: Platform) -> list[Removal]:
    """Makes room where the budget is spent or too little of the disk is free."""
    given, data = platform.settings.disk, platform.settings.data
    over = 0.0
    if given.max_bytes is not None:
        used = platform.meter.used(data, platform.clock.monotonic())
        over = used - AIM * given.max_bytes if used > given.max_bytes else 0.0
    free = shutil.disk_usage(data).free
    if free < given.min_free_bytes:
        over = max(over, given.min_free_bytes / AIM - free)
    if over <= 0:
        return []
    return clean(platform, given.tunes_unused_days, lambda freed: freed >= over)


def _orphans(platform: Platform, before: float) -> Iterator[Removal]:
    local = LocalBlobs(platform.settings.blobs)
    with platform.database.read() as tx:
        held = disk.holders(tx)
    for sha256, changed_at in local.stored():
        if sha256 not in held and changed_at < before:
            yield Removal("orphans", sha256, size_of(local.path(sha256)))


def _tune_bytes(platform: Platform, tx: Tx, name: str) -> int:
    """Of the files that no other model holds too, as far as they lie here."""
    manifest = disk.manifest_of(tx, name)
    if manifest is None:
        return 0
    local = LocalBlobs(platform.settings.blobs)
    try:
        files = Manifest.from_bytes(local.read(manifest)).files
    except AfinaError:
        return 0
    return sum(size_of(local.path(sha256)) for sha256 in set(files.values()))


def _remove(platform: Platform, removal: Removal) -> bool:
    """Looks once more, in the transaction that lets it go; whether it went."""
    name = removal.name
    if removal.kind == "orphans":
        return references.remove_blob(platform.database, platform.blobs, name) > 0
    if removal.kind == "tunes":
        return _remove_tune(platform, name)
    with platform.database.write() as tx:
        if removal.kind == "shards":
            if name in disk.needed_shards(tx):
                return False
            doomed = run_folders.hide_shards(platform, name)
        else:
            if name in disk.needed_jobs(tx):
                return False
            doomed = run_folders.hide_checkpoints(platform, name)
            if jobs.get_job(tx, name) is not None:
                events.add_events(tx, name, [event(platform, name, say("cleared"))])
    if doomed is not None:
        shutil.rmtree(doomed, ignore_errors=True)
    return doomed is not None


def _remove_tune(platform: Platform, name: str) -> bool:
    with platform.database.read() as tx:
        idle = {tune.name: tune for tune in disk.idle_tunes(tx, platform.now())}
    if name not in idle:
        return False
    caller = Caller(idle[name].project_id, "", "")
    delete_model(platform, caller, name)
    return True


def _tell(platform: Platform, done: list[Removal]) -> None:
    """The audit log says what went: counts and bytes by kind, and tuned models by name."""
    said: dict[str, object] = {}
    for kind in ORDER:
        gone = [removal for removal in done if removal.kind == kind]
        if gone:
            said[kind] = {"count": len(gone), "bytes": sum(removal.bytes for removal in gone)}
    names = [removal.name for removal in done if removal.kind == "tunes"]
    with platform.database.write() as tx:
        organization = disk.first_organization(tx)
        if organization is None:
            return
        caller = Caller("", "", organization)
        note(platform, tx, caller, "disk.cleaned", "disk", **said)
        for name in names:
            note(platform, tx, caller, "model.deleted", name, reason="unused")


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
