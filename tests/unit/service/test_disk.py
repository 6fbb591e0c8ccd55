"""Room on the disk is made in a fixed order, from what nothing refers to, and refused when there is
none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.platforms import (
    clock_of,
    first_caller,
    open_platform,
    publish,
    run_to_running,
    start_job,
    upload,
)

from afina.domain.accounts import Caller
from afina.domain.jobs import Job
from afina.errors import StorageFull
from afina.service import aliases, disk, uploads
from afina.service.audit import list_audit
from afina.service.files import NewFile
from afina.service.jobs import list_events
from afina.service.models import list_models
from afina.service.platform import Platform
from afina.service.sweep import sweep
from afina.store import disk as disk_rows
from afina.store.meter import DiskMeter, size_of
from afina.store.tables import JOBS

DAY_S = 86_400


def put(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * count)
    for place in (path, *path.parents[:3]):
        os.utime(place, (1, 1))
    return path


def finished(platform: Platform, caller: Caller, scratch: Path) -> Job:
    """A job that succeeded, whose run still has checkpoints, and its file's shards."""
    start_job(platform, caller)
    job = publish(platform, run_to_running(platform), scratch, steps=(10,))
    put(platform.settings.runs / job.id / "checkpoints" / "step-10" / "masters", 4000)
    return job


def orphan(platform: Platform, count: int = 1000) -> str:
    staged = platform.blobs.stage([os.urandom(count)])
    platform.blobs.place(staged)
    os.utime(platform.blobs.path(staged.sha256), (1, 1))
    return staged.sha256


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "data", disk={"min_free_bytes": 0})
    clock_of(opened).advance(365 * DAY_S * 60)  # what tests make now is older than the grace
    yield opened
    opened.close()


def kinds(found: list[disk.Removal]) -> list[str]:
    return [removal.kind for removal in found]


def test_room_is_made_in_order_and_only_as_much_as_is_needed(old: Platform, tmp_path: Path) -> None:
    caller = first_caller(old)
    job = finished(old, caller, tmp_path)
    put(old.settings.shards / ("a" * 64) / "one" / "rows", 2000)
    lone = orphan(old)
    assert kinds(disk.clean(old, None, dry_run=True)) == ["orphans", "shards", "checkpoints"]
    gone = disk.clean(old, None, lambda freed: freed >= 1500)
    assert [(r.kind, r.name) for r in gone] == [("orphans", lone), ("shards", "a" * 64)]
    assert kinds(disk.clean(old, None)) == ["checkpoints"]
    assert disk.clean(old, None) == []
    said = [e.message for e in list_events(old, caller, job.id).data]
    assert "removed to make room" in said[0]
    assert {one.id for one in list_models(old, caller)} >= {job.fine_tuned_model}


def test_a_rehearsal_removes_nothing(old: Platform, tmp_path: Path) -> None:
    finished(old, first_caller(old), tmp_path)
    orphan(old)
    before = size_of(old.settings.data / "blobs") + size_of(old.settings.runs)
    assert len(disk.clean(old, 1, dry_run=True)) > 1
    assert size_of(old.settings.data / "blobs") + size_of(old.settings.runs) == before


def test_what_a_job_needs_that_is_not_over_stays(old: Platform) -> None:
    caller = first_caller(old)
    file = upload(old, caller)
    job = start_job(old, caller, training_file=file.id)
    put(old.settings.shards / file.sha256 / "one" / "rows", 2000)
    put(old.settings.runs / job.id / "checkpoints" / "step-1" / "masters", 4000)
    assert disk.clean(old, 1) == []


def test_old_tunes_go_only_where_days_are_given_and_nothing_refers_to_them(
    old: Platform, tmp_path: Path
) -> None:
    caller = first_caller(old)
    idle = finished(old, caller, tmp_path)
    named = finished(old, caller, tmp_path)
    parent = finished(old, caller, tmp_path)
    aliases.set_alias(old, caller, "support-bot", str(named.fine_tuned_model))
    start_job_on(old, caller, str(parent.fine_tuned_model))
    clock_of(old).advance(31 * DAY_S)
    young = finished(old, caller, tmp_path)
    disk.clean(old, None)
    gone = disk.clean(old, 30)
    assert [(r.kind, r.name) for r in gone] == [("tunes", idle.fine_tuned_model)]
    assert gone[0].bytes > 0
    left = {one.id for one in list_models(old, caller) if one.tuned is not None}
    assert left == {named.fine_tuned_model, parent.fine_tuned_model, young.fine_tuned_model}
    types = [entry.type for entry in list_audit(old, caller).data]
    assert types.count("disk.cleaned") == 2
    assert "model.deleted" in types


def start_job_on(platform: Platform, caller: Caller, model: str) -> None:
    """A job that begins with the tune."""
    job = start_job(platform, caller)
    with platform.database.write() as tx:
        manifest = disk_rows.manifest_of(tx, model)
        tx.execute(update(JOBS).where(JOBS.c.id == job.id).values(parent_manifest=manifest))


def test_a_budget_that_is_spent_refuses_uploads_and_jobs_until_room_is_made(
    tmp_path: Path,
) -> None:
    opened = open_platform(tmp_path / "data", disk={"max_bytes": 10_000_000, "min_free_bytes": 0})
    caller = first_caller(opened)
    file = upload(opened, caller)
    asked = uploads.NewUpload(NewFile("a.jsonl", "fine-tune"), 10_000_000, "text/jsonl")
    with pytest.raises(StorageFull, match="of at most 10 MB, and 10 MB would come"):
        uploads.create_upload(opened, caller, asked)
    lone = orphan(opened, 10_000_000)
    opened.meter.forget()
    with pytest.raises(StorageFull) as caught:
        upload(opened, caller)
    assert (caught.value.status, caught.value.code) == (507, "disk_budget_spent")
    assert "afina disk clean" in caught.value.one_line()
    with pytest.raises(StorageFull):
        start_job(opened, caller, training_file=file.id)
    clock_of(opened).advance(365 * DAY_S * 60)
    assert [r.name for r in disk.keep_within(opened)] == [lone]
    upload(opened, caller)
    assert disk.keep_within(opened) == []
    opened.close()


def test_a_disk_that_is_nearly_full_refuses_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_platform(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=400_000_000))
    with pytest.raises(StorageFull, match="400 MB of its disk are free") as caught:
        upload(opened, first_caller(opened))
    assert caught.value.code == "disk_full"
    opened.close()


def test_what_holds_the_disk_adds_up(old: Platform, tmp_path: Path) -> None:
    finished(old, first_caller(old), tmp_path)
    orphan(old)
    put(old.settings.runs / "ftjob-x" / "attempt-1" / "log.txt", 70)
    with old.database.read() as tx:
        found = disk.measure(old.settings, tx)
    assert sum(found.kinds.values()) == found.total
    assert found.kinds["orphaned blobs"] == 1000
    assert found.kinds["checkpoints"] == 4000
    assert found.kinds["logs"] == 70
    assert found.kinds["files"] > 0
    assert found.kinds["tunes"] > 0


def test_the_directory_is_measured_at_most_every_few_seconds(tmp_path: Path) -> None:
    meter = DiskMeter()
    put(tmp_path / "a", 10)
    assert meter.used(tmp_path, 0.0) == 10
    put(tmp_path / "b", 10)
    meter.promise(5)
    assert meter.used(tmp_path, 1.0) == 15
    assert meter.used(tmp_path, 100.0) == 20


def test_the_sweep_and_the_clean_up_agree(old: Platform) -> None:
    orphan(old)
    sweep(old)
    assert disk.clean(old, None) == []
