"""A job has one worker at a time, and a worker that slept past its lease changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from tests.platforms import claim, clock_of, first_caller, start_job, upload

from afina.domain.events import JobEvent
from afina.domain.jobs import Job, JobStatus, Wish
from afina.errors import IllegalTransition, NotFound, StaleFence
from afina.service.platform import Platform
from afina.store import events, jobs, leases
from afina.store.database import Tx


def get(platform: Platform, job_id: str) -> Job:
    with platform.database.read() as tx:
        job = jobs.get_job(tx, job_id)
    assert job is not None
    return job


def test_the_oldest_job_is_claimed_first(platform: Platform) -> None:
    caller = first_caller(platform)
    made = [start_job(platform, caller).id for _ in range(3)]
    claimed = [claim(platform) for _ in range(4)]
    assert [job and job.id for job in claimed] == [*made, None]


def test_a_claim_raises_the_fence_and_is_no_attempt(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    first = claim(platform)
    clock_of(platform).advance(60)
    second = claim(platform, "worker-2")
    assert first is not None
    assert second is not None
    assert (first.fence, first.attempt) == (1, 0)
    assert (second.fence, second.attempt) == (2, 0)


def test_a_lease_that_is_beaten_is_not_taken_over(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    for _ in range(5):
        clock_of(platform).advance(50)
        with platform.database.write() as tx:
            leases.beat(tx, job.id, job.fence, platform.clock.now(), 60.0)
        assert claim(platform, "worker-2") is None


def test_a_dead_owner_is_taken_over_at_once(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    assert claim(platform, "dead") is not None
    with platform.database.write() as tx:
        assert leases.lease_owners(tx) == ["dead"]
        taken = leases.claim_job(
            tx,
            statuses=[JobStatus.VALIDATING],
            owner="living",
            now=platform.clock.now(),
            lease_s=60.0,
            dead_owners=["dead"],
        )
    assert taken is not None
    assert taken.fence == 2


def test_a_released_job_can_be_claimed_at_once(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    with platform.database.write() as tx:
        leases.release(tx, job.id, job.fence)
    assert claim(platform, "worker-2") is not None


def test_only_jobs_in_the_wanted_states_are_claimed(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    with platform.database.write() as tx:
        found = leases.claim_job(
            tx, statuses=[JobStatus.QUEUED, JobStatus.RUNNING], owner="w", now=0.0, lease_s=1.0
        )
    assert found is None


def test_every_write_of_a_worker_that_lost_its_lease_is_refused(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    old = claim(platform)
    assert old is not None
    clock_of(platform).advance(60)
    assert claim(platform, "worker-2") is not None
    before = get(platform, old.id)
    event = JobEvent("ftevent-x", old.id, 1, "info", "late", sequence=99)
    writes: list[Callable[[Tx], object]] = [
        lambda tx: leases.beat(tx, old.id, old.fence, platform.clock.now(), 60.0),
        lambda tx: leases.release(tx, old.id, old.fence),
        lambda tx: jobs.move_job(tx, old.id, old.fence, JobStatus.QUEUED),
        lambda tx: jobs.update_job(tx, old.id, old.fence, stage="late"),
        lambda tx: jobs.update_job(tx, old.id, old.fence),
        lambda tx: events.append_events(tx, old.id, old.fence, [event]),
        lambda tx: events.ingest_run_events(tx, old.id, old.fence, 1, [event], 10),
    ]
    for write in writes:
        with pytest.raises(StaleFence), platform.database.write() as tx:
            write(tx)
    assert get(platform, old.id) == before


def test_a_heartbeat_brings_back_the_users_wish(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    with platform.database.write() as tx:
        assert leases.beat(tx, job.id, job.fence, 0.0, 60.0) is None
        jobs.wish_for(tx, job.id, Wish.CANCEL)
        assert leases.beat(tx, job.id, job.fence, 0.0, 60.0) is Wish.CANCEL


def test_illegal_moves_change_nothing(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    refused = pytest.raises(IllegalTransition, match="validating_files")
    with refused, platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.SUCCEEDED, trained_tokens=5)
    assert get(platform, job.id) == job


def test_a_job_that_is_over_has_no_lease_and_cannot_be_changed(platform: Platform) -> None:
    start_job(platform, first_caller(platform))
    job = claim(platform)
    assert job is not None
    with platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.FAILED)
        assert leases.lease_owners(tx) == []
    with pytest.raises(IllegalTransition), platform.database.write() as tx:
        jobs.update_job(tx, job.id, job.fence, stage="later")
    with pytest.raises(StaleFence), platform.database.write() as tx:
        leases.beat(tx, job.id, job.fence, 0.0, 60.0)


def test_a_move_of_a_job_that_is_not_there_says_so(platform: Platform) -> None:
    with pytest.raises(NotFound), platform.database.write() as tx:
        jobs.move_job(tx, "ftjob-none", 1, JobStatus.QUEUED)


def test_threads_never_claim_the_same_job(platform: Platform) -> None:
    caller = first_caller(platform)
    file = upload(platform, caller).id
    wanted = {start_job(platform, caller, training_file=file).id for _ in range(40)}
    claimed: list[str] = []
    start = threading.Barrier(8)

    def work(name: str) -> None:
        start.wait()
        while (job := claim(platform, name)) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 40
    assert set(claimed) == wanted


@pytest.mark.long
def test_processes_never_claim_the_same_job(platform: Platform) -> None:
    caller = first_caller(platform)
    file = upload(platform, caller).id
    wanted = {start_job(platform, caller, training_file=file).id for _ in range(40)}
    program = (
        "import sys, json, threading\n"
        "from afina.domain.jobs import JobStatus\n"
        "from afina.store import leases\n"
        "from afina.store.database import Database\n"
        "db = Database.open(sys.argv[1]); got = []; sys.stdin.readline()\n"
        "def work(n):\n"
        "    while True:\n"
        "        with db.write() as tx:\n"
        "            job = leases.claim_job(tx, statuses=list(JobStatus)[:1], owner=f'{sys.argv[2]}{n}',"
        " now=1.0, lease_s=1e12)\n"
        "        if job is None: return\n"
        "        got.append(job.id)\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(json.dumps(got))\n"
    )
    command = [sys.executable, "-c", program, platform.settings.database_url]
    running = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    outputs = [process.communicate("go\n", timeout=60)[0] for process in running]
    claimed = [job_id for output in outputs for job_id in json.loads(output)]
    assert len(claimed) == 40
    assert set(claimed) == wanted
