"""A process that is killed amid uploads, deletions and publishing leaves a store that is whole."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.platforms import first_caller, open_platform

from afina.domain.jobs import JobStatus
from afina.service import jobs as service
from afina.service.platform import Platform
from afina.service.sweep import sweep
from afina.service.usage import list_ledger
from afina.store.tables import BLOB_REFS, BLOBS

ROOT = Path(__file__).parent.parent.parent
BUSY = """
import random, sys
from pathlib import Path
from afina.service.files import delete_file
from afina.service.models import delete_model, list_models
from tests.platforms import ROW, first_caller, open_platform, publish, run_to_running
from tests.platforms import start_job, upload

data, seed = Path(sys.argv[1]), int(sys.argv[2])
platform, chance = open_platform(data, seed=seed), random.Random(seed)
caller = first_caller(platform)
while True:
    print("again", flush=True)
    file = upload(platform, caller, ROW * chance.choice([10, 11, 12]))
    print("uploaded", flush=True)
    job = start_job(platform, caller, training_file=file.id)
    running = run_to_running(platform)
    print("running", flush=True)
    publish(platform, running, data / "scratch", steps=(1, 2))
    print("published", flush=True)
    tuned = [entry.id for entry in list_models(platform, caller) if entry.tuned]
    delete_model(platform, caller, chance.choice(tuned))
    print("model deleted", flush=True)
    if chance.random() < 0.5:
        delete_file(platform, caller, running.training_file)
"""


def work_and_be_killed(data: Path, seed: int, lines: int) -> None:
    """Starts a busy process and kills it right after it has said `lines` things."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(data), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert process.stdout is not None
    for _ in range(lines):
        if not process.stdout.readline():
            break
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err


def assert_whole(platform: Platform) -> None:
    """Every reference has its bytes, and every job that succeeded has its bill and its events."""
    caller = first_caller(platform)
    with platform.database.read() as tx:
        held = set(tx.execute(select(BLOB_REFS.c.sha256)).scalars())
        known = set(tx.execute(select(BLOBS.c.sha256)).scalars())
    assert held <= known
    for sha256 in held:
        assert hashlib.sha256(platform.blobs.read(sha256)).hexdigest() == sha256
    jobs = service.list_jobs(platform, caller, limit=1000).data
    done = {job.id for job in jobs if job.status is JobStatus.SUCCEEDED}
    billed = [entry.request_id for entry in list_ledger(platform, caller, limit=1000).data]
    assert sorted(billed) == sorted(done)
    for job in jobs:
        said = [e.message for e in service.list_events(platform, caller, job.id).data]
        assert (said[0] == "The job has successfully completed") is (job.id in done)
        points = service.list_checkpoints(platform, caller, job.id).data
        assert len(points) == (2 if job.id in done else 0)


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_kills_leave_no_reference_without_bytes_and_no_half_job(
    tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(7)
    for number in range(rounds):
        work_and_be_killed(tmp_path / "data", 100 + number, chance.randrange(1, 22))
        platform = open_platform(tmp_path / "data", seed=10_000 + number)
        assert_whole(platform)
        platform.close()
    platform = open_platform(tmp_path / "data", seed=99)
    sweep(platform, older_than_s=-(10.0**10))
    with platform.database.read() as tx:
        held = set(tx.execute(select(BLOB_REFS.c.sha256)).scalars())
    assert {sha256 for sha256, _ in platform.blobs.stored()} == held
    assert list(platform.blobs.staged_files()) == []
    platform.close()
