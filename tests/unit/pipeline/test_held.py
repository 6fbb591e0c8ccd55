"""Leases go to one worker, are beaten while it works, and are lost without a fuss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.pipeline.conftest import TRAIN, Shop

from afina.domain.clock import ManualClock
from afina.domain.ids import Ids
from afina.domain.jobs import JobStatus
from afina.errors import AfinaError
from afina.pipeline.held import Cancelled, LeaseKeeper, LeaseLost
from afina.pipeline.identity import WorkerIdentity
from afina.pipeline.lanes import claim
from afina.service import keys
from afina.service.jobs import cancel_job
from afina.service.platform import Platform
from afina.settings import Settings


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def platform(tmp_path: Path, clock: ManualClock) -> Platform:
    opened = Platform.open(Settings.load(data=tmp_path / "data"), clock)
    keys.ensure_first_key(opened)
    return opened


def test_a_job_goes_to_one_worker_until_its_lease_runs_out(shop: Shop, clock: ManualClock) -> None:
    job = shop.queue_job()
    first = claim(shop.platform, "first", TRAIN)
    assert first is not None
    assert claim(shop.platform, "second", TRAIN) is None
    clock.advance(shop.platform.settings.worker.lease_s + 1)
    second = claim(shop.platform, "second", TRAIN)
    assert second is not None
    assert (second.id, second.fence) == (job.id, first.fence + 1)


def test_a_lease_of_a_dead_process_of_this_host_goes_over_at_once(shop: Shop) -> None:
    shop.queue_job()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(WorkerIdentity.of_this_process(Ids(1), process.pid))
    assert claim(shop.platform, owner, TRAIN) is not None
    assert claim(shop.platform, "next", TRAIN) is None
    process.communicate()
    assert claim(shop.platform, "next", TRAIN) is not None


def test_a_keeper_beats_for_what_it_holds(shop: Shop, clock: ManualClock) -> None:
    shop.queue_job()
    job = claim(shop.platform, "first", TRAIN)
    assert job is not None
    keeper = LeaseKeeper(shop.platform)
    lease = keeper.hold(job)
    for _ in range(20):
        clock.advance(shop.platform.settings.worker.lease_s * 0.9)
        keeper.tick()
        assert claim(shop.platform, "second", TRAIN) is None
    lease.check()
    keeper.forget(lease)
    clock.advance(shop.platform.settings.worker.lease_s + 1)
    keeper.tick()
    assert claim(shop.platform, "second", TRAIN) is not None


def test_a_keeper_that_overslept_says_that_the_lease_is_lost(
    shop: Shop, clock: ManualClock
) -> None:
    shop.queue_job()
    job = claim(shop.platform, "first", TRAIN)
    assert job is not None
    keeper = LeaseKeeper(shop.platform)
    lease = keeper.hold(job)
    clock.advance(shop.platform.settings.worker.lease_s + 1)
    assert claim(shop.platform, "second", TRAIN) is not None
    keeper.tick()
    with pytest.raises(LeaseLost):
        lease.check()
    keeper.give_back(lease)
    assert claim(shop.platform, "third", TRAIN) is None


def test_a_wish_to_cancel_is_seen_between_two_beats(shop: Shop, clock: ManualClock) -> None:
    job = shop.queue_job()
    claimed = claim(shop.platform, "first", TRAIN)
    assert claimed is not None
    keeper = LeaseKeeper(shop.platform)
    lease = keeper.hold(claimed)
    keeper.tick()
    cancel_job(shop.platform, shop.caller, job.id)
    clock.advance(shop.platform.settings.worker.poll_s)
    keeper.tick()
    with pytest.raises(Cancelled):
        lease.check()


def test_what_is_given_back_can_be_claimed_at_once(shop: Shop) -> None:
    shop.queue_job()
    lease = shop.claim("first")
    shop.keeper().give_back(lease)
    assert claim(shop.platform, "second", TRAIN) is not None


def test_a_busy_database_loses_no_lease(
    shop: Shop, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.queue_job()
    job = claim(shop.platform, "first", TRAIN)
    assert job is not None
    keeper = LeaseKeeper(shop.platform)
    lease = keeper.hold(job)

    def busy(*_: object) -> None:
        raise AfinaError("The database is busy.")

    with monkeypatch.context() as patch:
        patch.setattr("afina.store.leases.beat", busy)
        clock.advance(11)
        keeper.tick()
    lease.check()
    clock.advance(11)
    keeper.tick()
    lease.check()


def test_jobs_that_wait_for_validation_are_not_trained(shop: Shop) -> None:
    shop.queue_job()
    assert claim(shop.platform, f"worker-{os.getpid()}", [JobStatus.VALIDATING]) is None
