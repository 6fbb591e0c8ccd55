"""The sweep removes what nobody knows, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.platforms import clock_of, publish, run_to_running, start_job, upload

from afina.domain.accounts import Caller
from afina.domain.uploads import OPEN_S
from afina.errors import InvalidRequest
from afina.service import uploads
from afina.service.files import NewFile
from afina.service.platform import Platform
from afina.service.sweep import sweep


def make_old(path: Path) -> None:
    os.utime(path, (1, 1))


def test_what_a_crash_left_is_swept_once_it_is_old(platform: Platform, caller: Caller) -> None:
    upload(platform, caller)
    orphan = platform.blobs.stage([b"placed, then the transaction failed"])
    platform.blobs.place(orphan)
    staged = platform.blobs.stage([b"never placed"])
    assert sweep(platform).blobs == 0
    make_old(platform.blobs.path(orphan.sha256))
    make_old(staged.path)
    report = sweep(platform)
    assert (report.blobs, report.staged) == (1, 1)
    assert report.bytes == orphan.size_bytes + staged.size_bytes
    assert sweep(platform) == type(report)()


def test_everything_that_is_referred_to_stays(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    job = start_job(platform, caller)
    publish(platform, run_to_running(platform), tmp_path)
    run = platform.settings.runs / job.id
    run.mkdir(parents=True)
    before = dict(platform.blobs.stored())
    for path in (*map(platform.blobs.path, before), run):
        make_old(path)
    report = sweep(platform)
    assert (report.blobs, report.folders) == (0, 0)
    assert set(dict(platform.blobs.stored())) == set(before)
    assert run.is_dir()


def test_folders_of_unknown_jobs_and_bytes_are_swept(platform: Platform, caller: Caller) -> None:
    file = upload(platform, caller)
    folders = [
        platform.settings.runs / "ftjob-unknown",
        platform.settings.shards / ("e" * 64),
        platform.settings.shards / file.sha256,
        platform.settings.runs / "mine-not-yours",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        make_old(folder)
    assert sweep(platform).folders == 2
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert not any((platform.settings.data / "trash").iterdir())


def test_an_upload_that_nobody_completes_expires_with_its_bytes(
    platform: Platform, caller: Caller
) -> None:
    new = uploads.NewUpload(NewFile("a.jsonl", "fine-tune"), 10, "text/jsonl")
    upload_ = uploads.create_upload(platform, caller, new)
    staged = platform.blobs.stage([b"ten bytes."])
    part = uploads.add_part(platform, caller, upload_.id, staged)
    clock_of(platform).advance(OPEN_S)
    with pytest.raises(InvalidRequest, match="is expired"):
        uploads.complete_upload(platform, caller, upload_.id, [part.id])
    sweep(platform)
    assert list(platform.blobs.stored()) == []
    assert list(platform.blobs.staged_files()) == []
    with pytest.raises(InvalidRequest, match="is expired"):
        uploads.cancel_upload(platform, caller, upload_.id)
