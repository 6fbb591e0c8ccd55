"""The command line that older clients have (`openai api …`, up to 2.34) works against this server.

It runs in an environment that holds that client alone, made by `make contract`.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.contract.live import BASE, Live
from tests.contract.tenants import published
from tests.contract.test_walk import client_python
from tests.platforms import ROW

VERSION = "1.109.1"


def printed(live: Live, *arguments: str) -> str:
    """What a command prints."""
    command = [str(client_python(VERSION).with_name("openai"))]
    where = ["--api-base", f"{live.url}/v1/", "--api-key", live.key, "api"]
    done = subprocess.run(
        [*command, *where, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def openai(live: Live, *arguments: str) -> Any:
    """The object that a command prints."""
    return json.loads(printed(live, *arguments))


def ids(live: Live, *arguments: str) -> list[str]:
    """The ids in a list, which some commands print object by object and some as one."""
    return re.findall(r'"id": "([^"]+)"', printed(live, *arguments))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_of_files_jobs_models_and_answers_works(live: Live, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(ROW * 12)
    file = openai(live, "files.create", "-f", str(rows), "-p", "fine-tune")
    assert file["filename"] == "rows.jsonl", "it sends the whole path"
    # files.retrieve and files.delete are left out: this client wants the arguments of files.create
    # for them, and never gets as far as asking a server.
    assert file["id"] in ids(live, "files.list")
    asked = ["-m", BASE, "-F", file["id"], "-V", file["id"], "-s", "old"]
    job = openai(live, "fine_tuning.jobs.create", *asked, "-H", '{"n_epochs": 2}')
    assert job["hyperparameters"]["n_epochs"] == 2
    assert openai(live, "fine_tuning.jobs.retrieve", "-i", job["id"])["id"] == job["id"]
    assert job["id"] in ids(live, "fine_tuning.jobs.list", "-l", "1")
    assert ids(live, "fine_tuning.jobs.list", "-a", job["id"]) == []
    assert len(ids(live, "fine_tuning.jobs.list_events", "-i", job["id"], "-l", "1")) == 1
    assert openai(live, "fine_tuning.jobs.cancel", "-i", job["id"])["status"] == "cancelled"
    tuned = published(live, live.key, file["id"], tmp_path / "scratch").fine_tuned_model or ""
    assert tuned in ids(live, "models.list")
    assert openai(live, "models.retrieve", "-i", tuned)["owned_by"]
    chat = ["-m", tuned, "-g", "user", "Hello", "-M", "8"]
    assert "Well met" in printed(live, "chat.completions.create", *chat)
    assert "Well met" in printed(live, "chat.completions.create", *chat, "--stream")
    assert "Well met" in printed(live, "completions.create", "-m", BASE, "-p", "Hello")
    assert openai(live, "models.delete", "-i", tuned)["deleted"]
