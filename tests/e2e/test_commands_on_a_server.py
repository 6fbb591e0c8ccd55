"""The commands against the real application: API, service, store and blobs; the scripted engine
answers in the place of the network, so no torch is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.contract.live import BASE, Live, running, settings_for
from tests.platforms import ROW
from typer.testing import CliRunner, Result

from afina.cli.main import app

Afina = Callable[..., Result]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for the commands of this file, in this process: its log must not be taken for
    what a command prints."""
    with capture_logs(), running(settings_for(tmp_path_factory.mktemp("data"))) as server:
        yield server


@pytest.fixture
def afina(live: Live, monkeypatch: pytest.MonkeyPatch) -> Afina:
    """Runs a command with the server's data directory, as a user on its machine does."""
    monkeypatch.setenv("AFINA_DATA", str(live.settings.data))
    monkeypatch.setenv("AFINA_BASE_URL", live.url)
    runner = CliRunner()

    def run(*arguments: str, typed: str | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=typed, prog_name="afina")

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW * 12)
    return path


def worked(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_a_file_goes_up_comes_back_whole_and_is_gone_once_deleted(
    afina: Afina, rows: Path, tmp_path: Path
) -> None:
    file_id = worked(afina("files", "upload", str(rows)))
    assert file_id in worked(afina("files", "list"))
    assert json.loads(worked(afina("files", "get", file_id, "--json")))["filename"] == "rows.jsonl"
    worked(afina("files", "download", file_id, "--to", str(tmp_path / "back.jsonl")))
    assert (tmp_path / "back.jsonl").read_bytes() == rows.read_bytes()
    worked(afina("files", "delete", file_id, "--yes"))
    gone = afina("files", "get", file_id)
    assert gone.exit_code == 1
    assert file_id in gone.stderr


def test_a_job_is_created_once_shown_cancelled_and_deleted(afina: Afina, rows: Path) -> None:
    create = ("jobs", "create", "--model", BASE, "--file", str(rows), "--suffix", "bard")
    job_id = worked(afina(*create, "--epochs", "2", "--seed", "7", "--metadata", "team=stage"))
    job = json.loads(worked(afina("jobs", "get", job_id, "--json")))
    assert job["method"]["supervised"]["hyperparameters"]["n_epochs"] == 2
    assert (job["seed"], job["metadata"]) == (7, {"team": "stage"})
    assert job_id in worked(afina("jobs", "list", "--limit", "1"))
    assert "Created fine-tuning job" in worked(afina("jobs", "events", job_id))
    assert json.loads(worked(afina("jobs", "checkpoints", job_id, "--json"))) == []
    worked(afina("jobs", "cancel", job_id))
    ended = afina("jobs", "watch", job_id)
    assert (ended.exit_code, "cancelled" in ended.stderr) == (1, True)
    worked(afina("jobs", "delete", job_id, "--yes"))
    assert afina("jobs", "get", job_id).exit_code == 1


def test_the_same_idempotency_key_gives_the_same_job(afina: Afina, rows: Path) -> None:
    file_id = worked(afina("files", "upload", str(rows)))
    create = ("jobs", "create", "--model", BASE, "--file", file_id, "--idempotency-key", "one")
    assert worked(afina(*create)) == worked(afina(*create))


def test_a_model_that_cannot_be_tuned_is_refused_with_those_that_can(
    afina: Afina, rows: Path
) -> None:
    done = afina("jobs", "create", "--model", "gpt-9", "--file", str(rows))
    assert done.exit_code == 1
    assert BASE in done.stderr.splitlines()[-1]


def test_models_are_listed_and_shown(afina: Afina) -> None:
    assert BASE in worked(afina("models", "list"))
    assert json.loads(worked(afina("models", "show", BASE, "--json")))["kind"] == "base"
    refused = afina("models", "export", BASE, "--to", "nowhere")
    assert (refused.exit_code, "base model" in refused.stderr) == (1, True)
    assert not Path("nowhere").exists()


def test_a_model_answers_through_a_pipe(afina: Afina) -> None:
    answer = worked(afina("chat", BASE, "--max-tokens", "8", typed="Hello\n"))
    assert answer
    lost = afina("chat", "ft:nobody:local::abcdefgh", typed="Hello\n")
    assert (lost.exit_code, len(lost.stderr.splitlines())) == (1, 1)


def test_a_key_opens_the_door_until_it_is_revoked(
    afina: Afina, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = json.loads(worked(afina("keys", "create", "ci", "--json")))
    monkeypatch.setenv("AFINA_API_KEY", key["secret"])
    assert key["id"] in worked(afina("keys", "list"))
    assert key["secret"] not in worked(afina("keys", "list"))
    monkeypatch.delenv("AFINA_API_KEY")
    worked(afina("keys", "revoke", key["id"], "--yes"))
    monkeypatch.setenv("AFINA_API_KEY", key["secret"])
    shut = afina("keys", "list")
    assert (shut.exit_code, "AFINA_API_KEY" in shut.stderr) == (1, True)


def test_usage_and_the_doctor_find_the_server_well(afina: Afina) -> None:
    for group in ("model", "kind", "day", "key"):
        assert "in all" in worked(afina("usage", "--by", group))
    verdicts = {
        row["name"]: row["verdict"] for row in json.loads(worked(afina("doctor", "--json")))
    }
    assert {"server": "ok", "engine": "ok", "database": "ok", "data": "ok"}.items() <= (
        verdicts.items()
    )


def test_all_that_the_project_owns_can_be_taken_away(
    afina: Afina, rows: Path, tmp_path: Path
) -> None:
    file_id = worked(afina("files", "upload", str(rows)))
    worked(afina("export", "--to", str(tmp_path / "all")))
    manifest = (tmp_path / "all" / "manifest.json").read_text()
    assert file_id in manifest
    worked(afina("export", "--to", str(tmp_path / "all.tar")))
    assert (tmp_path / "all.tar").stat().st_size > 0


def test_the_disk_is_shown_and_cleaned(afina: Afina, live: Live) -> None:
    lone = live.platform.blobs.stage([b"nobody refers to this"])
    live.platform.blobs.place(lone)
    os.utime(live.platform.blobs.path(lone.sha256), (1, 1))
    shown = worked(afina("disk", "show"))
    assert "orphaned blobs" in shown
    assert "no limit" in shown
    assert lone.sha256 in worked(afina("disk", "clean", "--dry-run"))
    assert live.platform.blobs.path(lone.sha256).exists()
    gone = json.loads(worked(afina("disk", "clean", "--json")))
    assert [(one["kind"], one["name"]) for one in gone] == [("orphans", lone.sha256)]
    assert not live.platform.blobs.path(lone.sha256).exists()
