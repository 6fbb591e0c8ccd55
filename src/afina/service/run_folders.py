"""What a job leaves on the disk besides blobs: its run directory and shards of its files.

Both hold rows of training data or weights made from them, so they go when their owner deletes the
file, job or model that they come from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from afina.domain.runs import CHECKPOINTS
from afina.service.card_facts import keep_facts
from afina.service.platform import Platform
from afina.store import models


def remove_run(platform: Platform, job_id: str) -> None:
    """Removes a job's run directory; what its models' cards say of the data stays."""
    with platform.database.read() as tx:
        has_models = bool(models.manifests_of_job(tx, job_id))
    if has_models:
        keep_facts(platform, job_id)
    _remove(platform, platform.settings.runs / job_id)


def remove_checkpoints(platform: Platform, job_id: str) -> None:
    """Removes the checkpoints of a job that is over; what was published is in blobs."""
    _remove(platform, platform.settings.runs / job_id / CHECKPOINTS)


def remove_shards(platform: Platform, file_sha256: str) -> None:
    """Removes everything that was prepared from the bytes of that hash."""
    _remove(platform, platform.settings.shards / file_sha256)


def hide_shards(platform: Platform, file_sha256: str) -> Path | None:
    """Takes shards out of sight, in the transaction that found them needless; the folder to remove
    after it, None where there were none."""
    return _hide(platform, platform.settings.shards / file_sha256)


def hide_checkpoints(platform: Platform, job_id: str) -> Path | None:
    """As `hide_shards`, for the checkpoints of a job."""
    return _hide(platform, platform.settings.runs / job_id / CHECKPOINTS)


def _remove(platform: Platform, folder: Path) -> None:
    doomed = _hide(platform, folder)
    if doomed is not None:
        shutil.rmtree(doomed)


def _hide(platform: Platform, folder: Path) -> Path | None:
    """Renamed first: what is being removed is never taken for whole."""
    if not folder.exists():
        return None
    trash = platform.settings.data / "trash"
    trash.mkdir(mode=0o700, exist_ok=True)
    doomed = trash / platform.ids.new(f"{folder.name}.", 8)
    folder.rename(doomed)
    return doomed


def empty_trash(platform: Platform) -> None:
    """Removes what a crash left half-removed."""
    trash = platform.settings.data / "trash"
    if trash.is_dir():
        for entry in trash.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
