"""On PostgreSQL two API processes and two workers share the work, and killing any loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.crash.test_kills import entries, project_of
from tests.live import LivePlatform, chats, wait_until
from tests.postgres import database_for

from afina.domain.ledger import EntryKind
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import models

SHAPE = {"n_epochs": 4, "batch_size": 2}


@contextmanager
def also(
    data: Path, environment: dict[str, str], *command: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Another part of the platform on the same data directory and database."""
    with (data / f"also-{command[0]}.txt").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "afina.cli", *command, "--data", str(data)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class OtherDoor(LivePlatform):
    """The second API process."""

    def __init__(self, data: Path, port: int) -> None:
        super().__init__(data)
        self.port = port


def open_door(data: Path, stack: ExitStack, environment: dict[str, str]) -> OtherDoor:
    stack.enter_context(also(data, environment, "api", "--port", "0"))
    log = data / "also-api.txt"

    def port() -> int | None:
        words = log.read_text().split()
        return int(words[words.index("port") + 1]) if "port" in words[:-1] else None

    return OtherDoor(data, wait_until("the second API listens", port))


@pytest.mark.slow
@pytest.mark.xdist_group("crash")
def test_two_doors_and_two_workers_share_the_work_and_deaths_lose_nothing(data: Path) -> None:
    url = database_for(data)
    environment = {
        "AFINA_DATABASE": url,
        "AFINA_TRAINING__PRECISION": "fp32",
        "AFINA_TRAINING__THREADS": "1",
        "AFINA_ENGINE__THREADS": "1",
        "AFINA_WORKER__LEASE_S": "5",
        "AFINA_WORKER__HEARTBEAT_S": "0.5",
    }
    with ExitStack() as stack:
        live = stack.enter_context(LivePlatform(data, environment))
        other = open_door(data, stack, environment)
        worker = stack.enter_context(also(data, environment, "worker"))
        file = live.upload(chats(24))
        jobs = [
            door.create_job(file, f"job {number}", **SHAPE)
            for number, door in enumerate((live, other, live, other))
        ]
        assert other.create_job(file, "job 0", **SHAPE) == jobs[0]
        wait_until("both train", lambda: running(other, jobs) >= 2)
        worker.send_signal(signal.SIGKILL)
        live.kill("worker")
        live.kill("api")
        over = [other.wait_for_job(job) for job in jobs]
        assert [job["status"] for job in over] == ["succeeded"] * 4, [j["error"] for j in over]
        assert not (data / "afina.db").exists()
        check_rows(data, url, jobs)


def running(door: LivePlatform, jobs: list[str]) -> int:
    return sum(door.job(job)["status"] == "running" for job in jobs)


def check_rows(data: Path, url: str, jobs: list[str]) -> None:
    platform = Platform.open(Settings(data=data, database=url))
    trained = [e.request_id for e in entries(platform) if e.kind is EntryKind.TRAINING]
    assert Counter(trained) == Counter(jobs)
    with platform.database.read() as tx:
        made = models.list_models(tx, project_of(platform))
    hashes = {model.manifest for model in made if model.step is None}
    # The same job four times: one set of bytes.
    assert len(hashes) == 1
    platform.close()
