"""The platform's processes: nothing outlives the supervisor, one supervisor a data directory, a
drained platform goes on where it was, and a worker that slept changes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.crash.conftest import data_directory
from tests.live import LivePlatform, chats, wait_until

from afina.domain.ids import SYSTEM_IDS
from afina.pipeline.identity import ProcessMark
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import jobs, models
from afina.store.tables import MODELS

SHAPE = {"n_epochs": 10, "batch_size": 2}
STEPS = 120
LEASES = {"AFINA_WORKER__LEASE_S": "3", "AFINA_WORKER__HEARTBEAT_S": "0.5"}
pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def live(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """One platform for all tests here, whose leases run out after three seconds; each test leaves
    it running."""
    platform = LivePlatform(
        data_directory(tmp_path_factory.mktemp("processes"), tiny_folder), LEASES
    )
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


@pytest.fixture
def platform(live: LivePlatform) -> Iterator[Platform]:
    opened = Platform.open(Settings.load(data=live.data))
    yield opened
    opened.close()


def begin_training(live: LivePlatform) -> str:
    """A job whose trainer has told its first step."""
    job = live.create_job(live.upload(chats(24)), SYSTEM_IDS.new("key-"), **SHAPE)
    wait_until("a step", lambda: "metrics" in {e["type"] for e in live.events(job)})
    return job


def steps_of(live: LivePlatform, job: str) -> list[int]:
    return [e["data"]["step"] for e in live.events(job) if e["type"] == "metrics"]


def test_nothing_outlives_a_killed_supervisor(live: LivePlatform) -> None:
    job = begin_training(live)
    family = live.family()
    assert len(family) == 5, "supervisor, engine, worker, api and trainer"
    live.kill("supervisor")
    assert not any(mark.is_alive for mark in family)
    assert live.wait_for_job(job)["status"] == "succeeded"


def test_a_drained_platform_leaves_nothing_and_goes_on_where_it_was(live: LivePlatform) -> None:
    job = begin_training(live)
    family = live.family()
    said = len((live.data / "up.txt").read_text())
    assert live.stop() == 0
    assert not any(mark.is_alive for mark in family)
    assert not (live.data / "server.json").exists()
    live.start()
    greeting = wait_until("it greets", lambda: greeting_of(live, said))
    assert greeting.count("afina answers at") == 1, greeting
    done = live.wait_for_job(job)
    assert done["status"] == "succeeded"
    assert steps_of(live, job) == list(range(1, STEPS + 1))


def greeting_of(live: LivePlatform, since: int) -> str | None:
    """What the second start said, once it has said all of it."""
    text = (live.data / "up.txt").read_text()[since:]
    return text if "API key: in" in text else None


def test_a_second_signal_ends_everything_at_once(live: LivePlatform) -> None:
    family = live.family()
    supervisor = live.process("supervisor")
    assert supervisor is not None
    supervisor.send_signal(signal.SIGINT)
    wait_until("it stops", lambda: not is_answering(live))
    if supervisor.is_running():
        supervisor.send_signal(signal.SIGINT)
    assert live.stop() == 0
    assert not any(mark.is_alive for mark in family)
    live.start()


def is_answering(live: LivePlatform) -> bool:
    try:
        return live.request("GET", "/health").status == 200
    except OSError:
        return False


def test_a_second_supervisor_on_one_data_directory_is_refused(live: LivePlatform) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "afina.cli", "up", "--data", str(live.data), "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert again.returncode != 0
    assert "already runs on" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1
    assert live.request("GET", "/health").status == 200


def test_a_taken_port_is_said_in_one_line(live: LivePlatform, tmp_path: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "afina.cli", "up", "--data", str(tmp_path / "other"),
         "--port", str(live.port)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert again.returncode != 0
    assert "--port" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_the_data_directory_is_its_owners_alone(live: LivePlatform) -> None:
    assert (live.data.stat().st_mode & 0o777) == 0o700
    for name in ("api-key", "afina.db", "server.json"):
        assert (live.data / name).stat().st_mode & 0o077 == 0, name


def fence_of(platform: Platform, job_id: str) -> int:
    with platform.database.read() as tx:
        job = jobs.get_job(tx, job_id)
    assert job is not None
    return job.fence


def models_of(platform: Platform, job_id: str) -> int:
    with platform.database.read() as tx:
        rows = tx.execute(MODELS.select().where(MODELS.c.job_id == job_id)).all()
    return len([models.model_of(row) for row in rows if row.step is None])


@pytest.mark.parametrize("woken", ["while the second trains", "when all is done"])
def test_a_worker_that_slept_past_its_lease_changes_nothing(
    live: LivePlatform, platform: Platform, woken: str
) -> None:
    job = begin_training(live)
    first = live.process("worker")
    trainer = live.process("trainer")
    assert first is not None
    assert trainer is not None
    fence = fence_of(platform, job)
    freeze(first, live)
    second = start_worker(live)
    try:
        wait_until("the lease goes over", lambda: fence_of(platform, job) > fence)
        if woken == "while the second trains":
            first.send_signal(signal.SIGCONT)
        wait_until("the first's trainer is gone", lambda: ProcessMark.of(trainer.pid) is None)
        done = live.wait_for_job(job)
        first.send_signal(signal.SIGCONT)
        assert done["status"] == "succeeded", done["error"]
        assert steps_of(live, job) == list(range(1, STEPS + 1))
        assert first.is_running()
        wait_until("the first finds out", lambda: has_lost(live, job))
        assert live.job(job) == done
        assert models_of(platform, job) == 1
    finally:
        first.send_signal(signal.SIGCONT)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0


def start_worker(live: LivePlatform) -> subprocess.Popen[bytes]:
    """A second worker on the same data directory."""
    environment = {**os.environ, **LEASES}
    with (live.data / "second.txt").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "afina.cli", "worker", "--data", str(live.data)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
        )  # fmt: skip


def freeze(worker: psutil.Process, live: LivePlatform) -> None:
    """Stop a worker where it holds no transaction: one that does stops every writer of SQLite."""
    while True:
        worker.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(live.data / "afina.db", timeout=0.2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                worker.send_signal(signal.SIGCONT)


def has_lost(live: LivePlatform, job: str) -> bool:
    """Whether the platform's own worker said that the job is another's."""
    lines = (live.data / "logs" / "worker.log").read_text().splitlines()
    return any(job in line and "lease.lost" in line for line in lines)
