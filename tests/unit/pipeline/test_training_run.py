"""A job comes to its end whatever its trainers do, and the store tells it once."""

from __future__ import annotations

import signal
from dataclasses import replace
from decimal import Decimal

import pytest
from structlog.testing import capture_logs
from tests.unit.pipeline.conftest import Shop

from afina.domain.jobs import Job, JobStatus
from afina.errors import StaleFence
from afina.inside_settings import Price
from afina.pipeline import exits, training_run
from afina.pipeline.testing import Script
from afina.service.budgets import set_spend_limit
from afina.service.jobs import cancel_job
from afina.service.usage import list_ledger
from afina.serving.protocol import Score, Scored
from afina.serving.testing import ScriptedEngine
from afina.store import jobs

KILLED = -int(signal.SIGKILL)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def honest(engine: ScriptedEngine) -> ScriptedEngine:
    """An engine that computes what the fake trainer says it computed."""

    def scored(score: Score) -> Scored:
        assert score.adapter is not None
        return Scored([-0.5], [[3, 4]], [[-0.5, -1.0]], "fp32")

    engine.scored = scored
    return engine


def steps(shop: Shop, job: Job) -> list[int]:
    return [e.data["step"] for e in shop.events(job) if e.type == "metrics"]


@pytest.mark.usefixtures("honest")
def test_a_job_goes_from_queued_to_a_model_with_the_wires_events(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=3))
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.SUCCEEDED
    assert (done.trained_tokens, done.attempt) == (30, 1)
    told = next(event for event in shop.events(job) if event.source == "foresight")
    assert told.data["measured"] == {"trained_tokens": 30, "seconds": 1.0, "memory_bytes": 1}
    assert set(told.data["estimate"]) == set(told.data["measured"])
    assert [event.message for event in shop.events(job)] == [
        "Fine-tuning job started",
        "Step 1/3: training loss=1.00",
        "Step 2/3: training loss=0.50",
        "Step 3/3: training loss=0.33",
        told.message,
        f"New fine-tuned model created: {done.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert [entry.trained_tokens for entry in ledger(shop)] == [30]


@pytest.mark.usefixtures("honest")
def test_what_a_job_took_is_what_the_next_one_is_expected_to_take(shop: Shop) -> None:
    for _ in range(2):
        job = shop.queue_job(Script(steps=3))
        shop.finish(shop.run(shop.claim()))
    told = next(event for event in shop.events(job) if event.source == "foresight")
    assert told.data["seconds_from"] == "from the one job that finished here with this model"
    assert told.data["estimate"]["seconds"] > 0
    assert "training alone" in told.message
    assert len(shop.platform.settings.rates.read_text().splitlines()) == 2


def ledger(shop: Shop) -> list:  # type: ignore[type-arg]
    return list(list_ledger(shop.platform, shop.caller).data)


@pytest.mark.usefixtures("honest")
def test_crashes_with_progress_are_gone_through_and_counted_once(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=6, exits=(KILLED, -11, 3, 75), at=(1, 2, 4, 5)))
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.SUCCEEDED
    assert steps(shop, job) == [1, 2, 3, 4, 5, 6]
    assert done.trained_tokens == 60
    assert [end.code for end in exits.read_exits(shop.paths(job))] == [KILLED, -11, 3, 75, 0]
    assert done.attempt == 5


def test_a_crash_at_the_same_step_three_times_fails_the_job_in_plain_words(shop: Shop) -> None:
    shop.queue_job(Script(steps=6, exits=(3, 3, 3), at=(0, 0, 0)))
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.code == "server_error"
    assert "3 times at step 0" in done.error.message


def test_a_run_that_holds_what_is_no_event_fails_instead_of_hanging(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=100_000, step_s=0.01))
    run = shop.run(shop.claim())
    run.step()
    shop.paths(job).events.write_text("not an event\n")
    done = shop.finish(run)
    assert done.status is JobStatus.FAILED
    assert not run.has_trainer


def test_a_failure_that_the_trainer_names_ends_the_job_at_once(shop: Shop) -> None:
    job = shop.queue_job(
        Script(steps=2, fail={"code": "not_finite", "message": "The loss is no number."})
    )
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert (done.error.code, done.error.message) == ("not_finite", "The loss is no number.")
    assert shop.events(job)[-1].level == "error"
    assert ledger(shop) == []


def test_a_wish_to_cancel_ends_a_run_with_the_work_done_billed(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=100_000, step_s=0.01))
    lease = shop.claim()
    run = shop.run(lease)
    while not steps(shop, job):
        run.step()
    cancel_job(shop.platform, shop.caller, job.id)
    lease.cancel.set()
    done = shop.finish(run)
    assert done.status is JobStatus.CANCELLED
    assert done.trained_tokens
    assert [entry.trained_tokens for entry in ledger(shop)] == [done.trained_tokens]
    assert done.trained_tokens == 10 * steps(shop, job)[-1]


def test_a_cancelled_job_that_has_no_trainer_yet_never_gets_one(shop: Shop) -> None:
    job = shop.queue_job()
    lease = shop.claim()
    lease.cancel.set()
    done = shop.finish(shop.run(lease))
    assert done.status is JobStatus.CANCELLED
    assert not list(shop.paths(job).root.glob("attempt-*"))


@pytest.mark.usefixtures("honest")
@pytest.mark.long
def test_a_worker_that_leaves_hands_the_run_over_with_its_steps(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=100, step_s=0.03))
    lease = shop.claim()
    run = shop.run(lease)
    while not steps(shop, job):
        run.step()
    while not run.is_over:
        run.leave()
        run.step()
    assert shop.job(job.id).status is JobStatus.RUNNING
    shop.keeper().give_back(lease)
    done = shop.finish(shop.run(shop.claim("another worker")))
    assert done.status is JobStatus.SUCCEEDED
    assert steps(shop, job) == list(range(1, 101))
    assert done.trained_tokens == 1_000


def test_a_worker_that_lost_its_lease_ends_its_trainer_and_writes_nothing(shop: Shop) -> None:
    job = shop.queue_job(Script(steps=100_000, step_s=0.01))
    run = shop.run(shop.claim())
    while not steps(shop, job):
        run.step()
    with shop.platform.database.write() as tx:
        jobs.wish_for(tx, job.id, None)
    take_over(shop, job)
    before = (shop.job(job.id), shop.events(job))
    with capture_logs() as said:
        shop.finish(run)
    assert run.lease.lost.is_set()
    assert [line["job"] for line in said if line["event"] == "lease.lost"] == [job.id]
    assert not run.has_trainer
    assert (shop.job(job.id), shop.events(job)) == before


def take_over(shop: Shop, job: Job) -> None:
    """Another worker claims the job, as after the lease ran out."""
    from afina.store import leases

    with shop.platform.database.write() as tx:
        taken = leases.claim_job(
            tx,
            statuses=[JobStatus.RUNNING],
            owner="another",
            now=shop.platform.clock.now() + 10_000,
            lease_s=60,
        )
    assert taken is not None
    assert taken.id == job.id


def test_a_worker_that_lost_a_queued_job_starts_no_trainer(shop: Shop) -> None:
    job = shop.queue_job()
    run = shop.run(shop.claim())
    with shop.platform.database.write() as tx:
        from afina.store import leases

        leases.claim_job(
            tx, statuses=[JobStatus.QUEUED], owner="another",
            now=shop.platform.clock.now() + 10_000, lease_s=60,
        )  # fmt: skip
    assert shop.finish(run).status is JobStatus.QUEUED
    assert not list(shop.paths(job).root.glob("attempt-*"))


def test_a_model_that_the_engine_computes_otherwise_is_not_published(
    shop: Shop, engine: ScriptedEngine
) -> None:
    engine.scored = lambda _: Scored([-9.0], [[7, 3]], [[-0.1, -9.0]], "fp32")
    shop.queue_job()
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.code == "parity_failed"
    assert done.fine_tuned_model is None


def test_an_engine_that_is_away_is_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from afina.pipeline import finish

    monkeypatch.setattr(finish, "ENGINE_PAUSE_S", 0.01)
    job = shop.queue_job()
    run = shop.run(shop.claim())
    while shop.job(job.id).stage != "parity":
        run.step()
    engine = ScriptedEngine(shop.platform.settings.engine_socket)
    # Said before it can be asked: the proof waits in a thread of its own.
    engine.scored = lambda _: Scored([-0.5], [[3, 4]], [[-0.5, -1.0]], "fp32")
    with engine:
        done = shop.finish(run)
    assert done.status is JobStatus.SUCCEEDED


def test_a_result_that_a_dead_worker_left_is_published_without_training_again(
    shop: Shop, honest: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.queue_job()

    def dies(*_: object) -> None:
        raise StaleFence("as if killed")

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "finish_job", dies)
        shop.finish(shop.run(shop.claim()))
    assert shop.job(job.id).status is JobStatus.RUNNING
    take_over(shop, job)
    with shop.platform.database.write() as tx:
        from afina.store import leases

        leases.release(tx, job.id, shop.job(job.id).fence)
    done = shop.finish(shop.run(shop.claim("next")))
    assert done.status is JobStatus.SUCCEEDED
    assert len(list(shop.paths(job).root.glob("attempt-*"))) == 1
    assert len(ledger(shop)) == 1


def with_a_budget(shop: Shop, cents: int) -> None:
    """Training costs a dollar a token, and the project may spend so much."""
    prices = {"*": Price(training=Decimal(1_000_000))}
    settings = shop.platform.settings.model_copy(update={"prices": prices})
    shop.platform = replace(shop.platform, settings=settings)
    set_spend_limit(shop.platform, shop.caller, shop.caller.project_id, cents)


def test_a_job_whose_budget_is_gone_when_its_turn_comes_never_gets_a_trainer(shop: Shop) -> None:
    job = shop.queue_job()
    with_a_budget(shop, 9_999)
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.code == "exceeded_quota"
    assert "1 of 1 epochs would cost $100.00, and $99.99 is left" in done.error.message
    assert ledger(shop) == []
    assert not list(shop.paths(job).root.glob("attempt-*"))


@pytest.mark.usefixtures("honest")
def test_a_budget_that_has_room_to_the_cent_lets_the_job_end(shop: Shop) -> None:
    shop.queue_job()
    with_a_budget(shop, 10_000)
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.SUCCEEDED
    assert done.estimated_finish is None
