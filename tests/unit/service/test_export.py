"""An export holds all that a project owns, nothing of others, and proves it with hashes."""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import ROW, publish, run_to_running, start_job, upload

from afina.domain.accounts import Caller
from afina.errors import InvalidRequest
from afina.service.export import export_project
from afina.service.platform import Platform


@pytest.fixture
def furnished(platform: Platform, caller: Caller, stranger: Caller, tmp_path: Path) -> Platform:
    start_job(platform, caller, suffix="bard")
    publish(platform, run_to_running(platform), tmp_path / "scratch")
    upload(platform, stranger, b'{"theirs": "STRANGER-CANARY"}\n')
    start_job(platform, stranger)
    return platform


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_holds_everything_and_the_list_proves_it(
    furnished: Platform, caller: Caller, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    report = export_project(furnished, caller, target)
    assert (report.files, report.jobs, report.models, report.ledger_entries) == (2, 1, 2, 1)
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["project"] == caller.project_id
    for part in manifest["contents"]:
        raw = (target / part["path"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (part["bytes"], part["sha256"])
    found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    assert found == {part["path"] for part in manifest["contents"]} | {"manifest.json"}
    training, results = lines(target / "files.jsonl")
    assert (target / "files" / f"{training['id']}.jsonl").read_bytes() == ROW * 10
    assert (target / "files" / f"{results['id']}.csv").exists()
    job = lines(target / "jobs.jsonl")[0]
    assert len(lines(target / "events" / f"{job['id']}.jsonl")) == 5
    assert len(lines(target / "checkpoints.jsonl")) == 2


def test_models_are_folders_that_other_programs_read(
    furnished: Platform, caller: Caller, tmp_path: Path
) -> None:
    export_project(furnished, caller, tmp_path / "out")
    folders = sorted((tmp_path / "out" / "models").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert folder.name.startswith("ft--tiny-base--local--bard--")
        names = {path.name for path in folder.iterdir()}
        weights = {"adapter_config.json", "adapter_model.safetensors", "tune.json"}
        assert names == weights | {"README.md", "card.json", "card.html"}
        card = json.loads((folder / "card.json").read_text())
        assert card["model"].replace(":", "--") == folder.name


def test_the_ledger_comes_as_a_table_too(
    furnished: Platform, caller: Caller, tmp_path: Path
) -> None:
    export_project(furnished, caller, tmp_path / "out")
    with (tmp_path / "out" / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["trained_tokens"], row["amount_usd"]) for row in rows] == [
        ("training", "1234", "0")
    ]


def test_nothing_of_another_project_and_no_secret_is_handed_over(
    furnished: Platform, caller: Caller, tmp_path: Path
) -> None:
    export_project(furnished, caller, tmp_path / "out")
    secret = (furnished.settings.data / "api-key").read_text().strip()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert b"STRANGER-CANARY" not in raw
            assert secret.encode() not in raw
            assert hashlib.sha256(secret.encode()).hexdigest().encode() not in raw


def test_a_tar_file_holds_the_same_as_the_folder(
    furnished: Platform, caller: Caller, tmp_path: Path
) -> None:
    export_project(furnished, caller, tmp_path / "out")
    report = export_project(furnished, caller, tmp_path / "out.tar")
    assert report.path == tmp_path / "out.tar"
    with tarfile.open(tmp_path / "out.tar") as tar:
        for entry in tar:
            source = tar.extractfile(entry)
            assert source is not None
            assert source.read() == (tmp_path / "out" / entry.name).read_bytes()
        names = tar.getnames()
    assert names[-1] == "manifest.json"
    assert len(names) == len([p for p in (tmp_path / "out").rglob("*") if p.is_file()])


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_nothing_that_is_there_is_written_over(
    furnished: Platform, caller: Caller, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    export_project(furnished, caller, target)
    with pytest.raises(InvalidRequest, match="there already"):
        export_project(furnished, caller, target)


def test_an_empty_project_exports_too(
    furnished: Platform, stranger: Caller, tmp_path: Path
) -> None:
    nobody = Caller("proj_nobody", "key_nobody", stranger.organization_id)
    report = export_project(furnished, nobody, tmp_path / "out")
    assert (report.files, report.jobs, report.bytes > 0) == (0, 0, True)
