"""The command line that older clients have (`openai api …`, up to 2.34) works against this server.

It runs in an environment that holds that client alone, made by `make contract`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.contract.live import BASE, Live
from tests.contract.tenants import published
from tests.contract.test_walk import client_python
from tests.platforms import ROW

VERSION = "1.109.1"


def openai(live: Live, *arguments: str) -> Any:
    """What a command prints, read as JSON where it is."""
    command = [str(client_python(VERSION).with_name("openai"))]
    where = ["--api-base", f"{live.url}/v1/", "--api-key", live.key, "api"]
    done = subprocess.run(
        [*command, *where, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        return json.loads(done.stdout)
    except ValueError:
        return done.stdout


@pytest.mark.slow
def test_every_command_of_files_jobs_models_and_answers_works(live: Live, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(ROW * 12)
    file = openai(live, "files.create", "-f", str(rows), "-p", "fine-tune")
    assert openai(live, "files.retrieve", "-i", file["id"])["filename"].endswith("rows.jsonl")
    assert file["id"] in {f["id"] for f in openai(live, "files.list")["data"]}
    asked = ["-m", BASE, "-F", file["id"], "-V", file["id"], "-s", "old"]
    job = openai(live, "fine_tuning.jobs.create", *asked, "-H", '{"n_epochs": 2}')
    assert job["hyperparameters"]["n_epochs"] == 2
    assert openai(live, "fine_tuning.jobs.retrieve", "-i", job["id"])["id"] == job["id"]
    assert openai(live, "fine_tuning.jobs.list", "-l", "1")["data"][0]["id"] == job["id"]
    assert openai(live, "fine_tuning.jobs.list", "-a", job["id"])["data"] == []
    events = openai(live, "fine_tuning.jobs.list_events", "-i", job["id"], "-l", "1")
    assert len(events["data"]) == 1
    assert openai(live, "fine_tuning.jobs.cancel", "-i", job["id"])["status"] == "cancelled"
    tuned = published(live, live.key, file["id"], tmp_path / "scratch").fine_tuned_model or ""
    assert tuned in {model["id"] for model in openai(live, "models.list")["data"]}
    assert openai(live, "models.retrieve", "-i", tuned)["owned_by"]
    chat = ["-m", tuned, "-g", "user", "Hello", "-M", "8"]
    assert "Well met" in openai(live, "chat.completions.create", *chat)
    assert "Well met" in openai(live, "chat.completions.create", *chat, "--stream")
    assert "Well met" in openai(live, "completions.create", "-m", BASE, "-p", "Hello")
    assert openai(live, "models.delete", "-i", tuned)["deleted"]
    assert openai(live, "files.delete", "-i", file["id"])["deleted"]
