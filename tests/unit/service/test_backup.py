"""A backup is whole or none, and what is restored from it is what was there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.platforms import (
    add_base,
    first_caller,
    open_platform,
    publish,
    run_to_running,
    start_job,
)

from afina.domain.accounts import Caller
from afina.errors import AfinaError
from afina.service import aliases, files, jobs, models
from afina.service.backup import backup, restore
from afina.service.platform import Platform
from afina.settings import Settings

pytestmark = [pytest.mark.sqlite, pytest.mark.long]


def told(platform: Platform, caller: Caller) -> str:
    """All that a project's lists say."""
    found = [
        files.list_files(platform, caller).data,
        jobs.list_jobs(platform, caller).data,
        [model.tuned for model in models.list_models(platform, caller) if model.tuned],
    ]
    return repr(found)


@pytest.mark.parametrize("name", ["folder", "file.tar"])
def test_what_is_restored_is_what_was_there(
    platform: Platform, caller: Caller, tmp_path: Path, name: str
) -> None:
    start_job(platform, caller)
    done = publish(platform, run_to_running(platform), tmp_path / "scratch")
    waiting = start_job(platform, caller)
    run = platform.settings.runs / waiting.id / "checkpoints" / "step-1"
    run.mkdir(parents=True)
    (run / "state.json").write_text("{}")
    report = backup(platform, tmp_path / name)
    assert report.bases == ("tiny-base",)
    before = told(platform, caller)
    files.delete_file(platform, caller, done.training_file)
    models.delete_model(platform, caller, done.fine_tuned_model or "")
    settings = Settings.load(data=tmp_path / "new")
    assert restore(tmp_path / name, settings).parts == report.parts
    again = open_platform(tmp_path / "new", seed=2)
    assert told(again, first_caller(again)) == before
    assert (settings.runs / waiting.id / "checkpoints" / "step-1" / "state.json").is_file()
    _, handle = files.open_file(again, first_caller(again), done.training_file)
    with handle:
        assert handle.read(1) == b"{"
    alias = aliases.set_alias(again, first_caller(again), "bot", done.fine_tuned_model)
    assert alias.target == done.fine_tuned_model
    again.close()
    assert list(platform.settings.data.glob(".backup-*")) == []


def test_a_backup_that_is_damaged_or_broke_off_is_refused(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    source = tmp_path / "backup"
    backup(platform, source)
    blob = next((source / "blobs").rglob("*/*/*"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(AfinaError, match="damaged"):
        restore(source, Settings.load(data=tmp_path / "a"))
    assert not (tmp_path / "a" / "afina.db").exists()
    blob.unlink()
    with pytest.raises(AfinaError, match="missing"):
        restore(source, Settings.load(data=tmp_path / "b"))
    (source / "backup.json").unlink()
    with pytest.raises(AfinaError, match="no whole backup"):
        restore(source, Settings.load(data=tmp_path / "c"))


def test_nothing_is_written_over_and_nothing_outside(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    source = tmp_path / "backup"
    backup(platform, source)
    with pytest.raises(AfinaError, match="is there already"):
        restore(source, platform.settings)
    manifest = json.loads((source / "backup.json").read_text())
    manifest["contents"].append({"path": "../outside", "bytes": 0, "sha256": "0" * 64})
    (source / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(AfinaError, match="outside"):
        restore(source, Settings.load(data=tmp_path / "new"))
    assert not (tmp_path / "outside").exists()


def test_base_models_that_are_there_stay(platform: Platform, tmp_path: Path) -> None:
    backup(platform, tmp_path / "backup")
    other = open_platform(tmp_path / "elsewhere")
    add_base(other, "mine")
    other.close()
    models_folder = tmp_path / "new" / "models"
    (tmp_path / "new").mkdir()
    (tmp_path / "elsewhere" / "models").rename(models_folder)
    restore(tmp_path / "backup", Settings.load(data=tmp_path / "new"))
    assert (models_folder / "mine" / "afina.json").is_file()
