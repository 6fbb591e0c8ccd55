"""Sweeping: expired files, bytes that nobody refers to, and what crashes left behind.

Everything it removes is either past its time or unknown to the database; both are looked at again
inside the transaction that removes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afina.domain.ids import JOB
from afina.service import run_folders, stored, uploads, watch, webhooks
from afina.service.files import drop_file, remove_traces
from afina.service.platform import Platform
from afina.store import batches, files, idempotency, jobs, outbox, references
from afina.store.references import Holder

_OUTBOX_KEPT_S = 7 * 24 * 3600


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed."""

    expired_files: int = 0
    blobs: int = 0
    staged: int = 0
    folders: int = 0
    bytes: int = 0


def sweep(platform: Platform, older_than_s: float = 900.0) -> SweepReport:
    """Removes what is expired, and orphans that are older than `older_than_s`."""
    before = platform.clock.now() - older_than_s
    expired, freed = _sweep_expired(platform)
    uploads.sweep_uploads(platform)
    webhooks.sweep_deliveries(platform)
    stored.sweep_answers(platform)
    watch.forget_old(platform)
    _drop_holds_of_ended_jobs(platform)
    blobs, blob_bytes = _sweep_blobs(platform, before)
    staged, staged_bytes = _sweep_staged(platform, before)
    folders = _sweep_runs(platform, before) + _sweep_shards(platform, before)
    run_folders.empty_trash(platform)
    with platform.database.write() as tx:
        idempotency.forget_expired(tx, platform.now())
        outbox.drop_done_items(tx, platform.now() - _OUTBOX_KEPT_S)
    return SweepReport(expired, blobs, staged, folders, freed + blob_bytes + staged_bytes)


def _sweep_expired(platform: Platform) -> tuple[int, int]:
    with platform.database.read() as tx:
        candidates = files.expired_files(tx, platform.now())
    count = freed = 0
    for file in candidates:
        with platform.database.write() as tx:
            live = jobs.jobs_using_file(tx, file.id, live_only=True)
            if live or batches.is_file_in_use(tx, file.id):
                continue  # What began with it may finish; the next sweep comes again.
            over = drop_file(tx, file)
        freed += remove_traces(platform, file, over)
        count += 1
    return count, freed


def _drop_holds_of_ended_jobs(platform: Platform) -> None:
    with platform.database.write() as tx:
        for job_id in references.holder_ids(tx, "job"):
            job = jobs.get_job(tx, job_id)
            if job is None or job.status.is_terminal:
                references.drop_references(tx, Holder("job", job_id))


def _sweep_blobs(platform: Platform, before: float) -> tuple[int, int]:
    count = freed = 0
    for sha256, changed_at in list(platform.blobs.stored()):
        if changed_at >= before:
            continue
        with platform.database.read() as tx:
            if references.is_referred_to(tx, sha256):
                continue
        size = references.remove_blob(platform.database, platform.blobs, sha256)
        count += size > 0
        freed += size
    return count, freed


def _sweep_staged(platform: Platform, before: float) -> tuple[int, int]:
    count = freed = 0
    for path, changed_at in list(platform.blobs.staged_files()):
        if changed_at < before:
            freed += path.stat().st_size if path.exists() else 0
            path.unlink(missing_ok=True)
            count += 1
    return count, freed


def _sweep_runs(platform: Platform, before: float) -> int:
    """Run directories of jobs that were deleted while a worker still wrote there."""
    count = 0
    for folder in _folders(platform.settings.runs, before):
        if not folder.name.startswith(JOB):
            continue
        with platform.database.read() as tx:
            known = jobs.get_job(tx, folder.name) is not None
        if not known:
            run_folders.remove_run(platform, folder.name)
            count += 1
    return count


def _sweep_shards(platform: Platform, before: float) -> int:
    """Shards of bytes that no file holds any more."""
    count = 0
    for folder in _folders(platform.settings.shards, before):
        with platform.database.read() as tx:
            held = references.is_referred_to(tx, folder.name)
        if not held:
            run_folders.remove_shards(platform, folder.name)
            count += 1
    return count


def _folders(root: Path, before: float) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(f for f in root.iterdir() if f.is_dir() and f.stat().st_mtime < before)
