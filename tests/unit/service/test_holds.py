"""What jobs under way hold of a budget: together they never cost more than the limit, whoever is
killed, and the ledger alone says what was spent."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.platforms import BASE, clock_of, first_caller, open_platform, start_job

from afina.domain.accounts import Caller
from afina.domain.jobs import Job, JobError, JobStatus
from afina.domain.limits import PICO_A_CENT, month_of
from afina.errors import QuotaExceeded
from afina.service import budgets, publish
from afina.service.jobs import cancel_job, delete_job, pause_job, resume_job
from afina.service.platform import Platform
from afina.service.usage import begin_epochs, epoch_budget, hold_training, record_training
from afina.store import holds, jobs, ledger
from afina.store.tables import JOBS

EPOCHS, TOKENS = 2, 10
"""A dollar a token, so a job costs 20 dollars."""
FAILED = JobError("server_error", "It failed.")


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "priced", prices={BASE: {"training": "1000000"}})
    yield opened
    opened.close()


def limit(platform: Platform, dollars: int) -> Caller:
    caller = first_caller(platform)
    budgets.set_spend_limit(platform, caller, None, dollars * 100)
    return caller


def unweighed(platform: Platform, caller: Caller) -> Job:
    """A job that a worker has just claimed."""
    made = start_job(platform, caller)
    with platform.database.write() as tx:
        values = {"lease_owner": "w", "lease_expires_at": platform.clock.now() + 60, "fence": 1}
        tx.execute(update(JOBS).where(JOBS.c.id == made.id).values(values))
    return replace(made, fence=1)


def queued(platform: Platform, caller: Caller) -> Job:
    """A job that was weighed and waits for its trainer."""
    job = unweighed(platform, caller)
    hold_training(platform, job, EPOCHS, TOKENS)
    with platform.database.write() as tx:
        return jobs.move_job(tx, job.id, job.fence, JobStatus.QUEUED)


def running(platform: Platform, job: Job, begun: int = 1) -> Job:
    with platform.database.write() as tx:
        moved = jobs.move_job(tx, job.id, job.fence, JobStatus.RUNNING)
    begin_epochs(platform, job, EPOCHS, TOKENS, begun)
    return moved


def end(platform: Platform, job: Job, tokens: int) -> None:
    with platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.SUCCEEDED)
        record_training(platform, tx, job, "ft:a", tokens)


def rest(platform: Platform, caller: Caller, job: Job, tokens: int) -> Job:
    pause_job(platform, caller, job.id)
    return publish.pause_job(platform, job, None, tokens)


def spent(platform: Platform, caller: Caller) -> int:
    _, since = month_of(platform.now())
    with platform.database.read() as tx:
        return ledger.spent(tx, caller.organization_id, since) // (100 * PICO_A_CENT)


def held(platform: Platform, caller: Caller) -> list[str]:
    with platform.database.read() as tx:
        return [hold.job_id for hold, _ in holds.list_holds(tx, caller.organization_id)]


def test_a_job_that_does_not_fit_beside_those_under_way_is_refused(priced: Platform) -> None:
    caller = limit(priced, 50)
    first, _ = queued(priced, caller), queued(priced, caller)
    third = unweighed(priced, caller)
    with pytest.raises(QuotaExceeded) as refused:
        hold_training(priced, third, EPOCHS, TOKENS)
    assert refused.value.code == "exceeded_quota"
    assert (
        "This job would cost $20.00, and $10.00 is left of what the organization "
        f"{caller.organization_id} may spend this month, with $40.00 held for jobs that came "
        "before it." in refused.value.message
    )
    assert third.id not in held(priced, caller)
    hold_training(priced, first, EPOCHS, TOKENS)  # prepared again after a kill: one promise
    assert len(held(priced, caller)) == 2
    clock_of(priced).advance(120)  # its worker died
    cancel_job(priced, caller, first.id)
    hold_training(priced, third, EPOCHS, TOKENS)


def test_who_was_promised_first_sees_nothing_of_those_behind(priced: Platform) -> None:
    caller = limit(priced, 40)
    first, second = queued(priced, caller), queued(priced, caller)
    assert epoch_budget(priced, first, EPOCHS, TOKENS).epochs is None
    assert epoch_budget(priced, second, EPOCHS, TOKENS).epochs is None
    limit(priced, 30)
    assert epoch_budget(priced, first, EPOCHS, TOKENS).epochs is None
    told = epoch_budget(priced, second, EPOCHS, TOKENS)
    assert told.epochs == 1
    assert "with $20.00 held for jobs that came before it" in str(told.reason)


def test_answers_see_what_has_begun_to_train_and_no_more(priced: Platform) -> None:
    caller = limit(priced, 20)
    job = queued(priced, caller)
    budgets.check_budget(priced, caller)
    job = running(priced, job)
    budgets.check_budget(priced, caller)
    begin_epochs(priced, job, EPOCHS, TOKENS, 2)
    begin_epochs(priced, job, EPOCHS, TOKENS, 1)  # by an attempt that starts again: it stays
    with pytest.raises(QuotaExceeded, match=r"has spent \$0.00 and jobs are training for \$20.00"):
        budgets.check_budget(priced, caller)
    end(priced, job, 20)
    with pytest.raises(QuotaExceeded, match=r"has spent \$20.00\."):
        budgets.check_budget(priced, caller)
    assert held(priced, caller) == []


def test_a_hold_goes_with_its_job_however_that_ends(priced: Platform) -> None:
    caller = limit(priced, 1000)
    done, failed, cancelled, waiting = (queued(priced, caller) for _ in range(4))
    end(priced, running(priced, done), 20)
    publish.fail_job(priced, failed, FAILED)
    cancel_job(priced, caller, cancelled.id)  # its worker is told; the lease of a dead one ends
    clock_of(priced).advance(120)
    cancel_job(priced, caller, cancelled.id)
    assert held(priced, caller) == [waiting.id]
    clock_of(priced).advance(120)
    cancel_job(priced, caller, waiting.id)
    delete_job(priced, caller, waiting.id)
    assert held(priced, caller) == []


def test_a_paused_job_keeps_what_it_has_begun_and_comes_back_behind_the_others(
    priced: Platform,
) -> None:
    caller = limit(priced, 40)
    paused = running(priced, queued(priced, caller))
    rest(priced, caller, paused, TOKENS)
    other = queued(priced, caller)
    assert epoch_budget(priced, other, EPOCHS, TOKENS).epochs is None
    limit(priced, 30)
    assert epoch_budget(priced, other, EPOCHS, TOKENS).epochs is None
    resume_job(priced, caller, paused.id)
    assert held(priced, caller) == [other.id, paused.id]
    assert epoch_budget(priced, other, EPOCHS, TOKENS).epochs is None
    assert epoch_budget(priced, paused, EPOCHS, TOKENS).epochs == 1


def test_free_tokens_are_promised_once(tmp_path: Path) -> None:
    free = {"tokens_per_day": 20, "until": "2100-01-01"}
    priced = open_platform(
        tmp_path / "free", prices={BASE: {"training": "1000000"}}, free_training=free
    )
    caller = limit(priced, 10)
    queued(priced, caller)
    second = unweighed(priced, caller)
    with pytest.raises(QuotaExceeded, match=r"cost \$20.00, and \$10.00 is left"):
        hold_training(priced, second, EPOCHS, TOKENS)
    priced.close()


STEPS = ("new", "new", "begin", "begin", "end", "kill", "fail", "pause", "resume")


@pytest.mark.long
def test_jobs_together_never_cost_more_than_the_limit(priced: Platform) -> None:
    """Whatever comes: jobs begin, end, fail, rest, and lose their workers in between."""
    drawn, costs = random.Random(7), []
    for dollars in (30, 50, 70):
        caller = limit(priced, dollars)
        live: dict[str, tuple[Job, int]] = {}
        for _ in range(24):
            _one_step(priced, caller, drawn.choice(STEPS), live)
        for job, begun in live.values():
            if job.status is JobStatus.RUNNING:
                end(priced, job, begun * TOKENS)
            else:
                publish.fail_job(priced, job, FAILED)
        costs.append(spent(priced, caller))
        assert costs[-1] <= dollars
        assert held(priced, caller) == []
        clock_of(priced).advance(32 * 86_400)
    assert sum(costs) >= 30


def _one_step(
    platform: Platform, caller: Caller, step: str, live: dict[str, tuple[Job, int]]
) -> None:
    if step == "new":
        _new(platform, caller, live)
    elif step == "kill":
        clock_of(platform).advance(120)
        live |= {id_: (_again(platform, one), n) for id_, (one, n) in live.items()}
    elif live:
        job, begun = next(iter(live.values()))
        room = epoch_budget(platform, job, EPOCHS, TOKENS).epochs
        may = EPOCHS if room is None else room
        if step == "begin" and begun < may and job.status is not JobStatus.PAUSED:
            if job.status is JobStatus.QUEUED:
                with platform.database.write() as tx:
                    job = jobs.move_job(tx, job.id, job.fence, JobStatus.RUNNING)
            begin_epochs(platform, job, EPOCHS, TOKENS, begun + 1)
            live[job.id] = job, begun + 1
        elif step == "end" and job.status is JobStatus.RUNNING:
            end(platform, job, begun * TOKENS)
            del live[job.id]
        elif step == "fail":
            publish.fail_job(platform, job, FAILED)
            del live[job.id]
        elif step == "pause" and job.status is JobStatus.RUNNING:
            live[job.id] = rest(platform, caller, job, begun * TOKENS), begun
        elif step == "resume" and job.status is JobStatus.PAUSED:
            live[job.id] = resume_job(platform, caller, job.id), begun


def _new(platform: Platform, caller: Caller, live: dict[str, tuple[Job, int]]) -> None:
    job = unweighed(platform, caller)
    try:
        hold_training(platform, job, EPOCHS, TOKENS)
    except QuotaExceeded:
        publish.fail_job(platform, job, FAILED)
        return
    with platform.database.write() as tx:
        live[job.id] = jobs.move_job(tx, job.id, job.fence, JobStatus.QUEUED), 0


def _again(platform: Platform, job: Job) -> Job:
    """The job as another worker takes it over."""
    with platform.database.write() as tx:
        higher = JOBS.c.fence + 1
        values = {"fence": higher, "lease_expires_at": platform.clock.now() + 10**9}
        tx.execute(update(JOBS).where(JOBS.c.id == job.id).values(values))
    return replace(job, fence=job.fence + 1)
