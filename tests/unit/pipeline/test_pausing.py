"""A job may be paused and resumed as often as its user likes, wherever it stands."""

from __future__ import annotations

import pytest
from tests.platforms import add_base
from tests.unit.pipeline.conftest import Shop

from afina.domain.jobs import Job, JobStatus
from afina.pipeline import exits
from afina.pipeline.testing import Script
from afina.service import models
from afina.service.jobs import list_checkpoints, pause_job, resume_job
from afina.service.platform import Platform
from afina.serving.protocol import Score, Scored
from afina.serving.testing import ScriptedEngine


@pytest.fixture(autouse=True)
def base(platform: Platform) -> None:
    """A job is resumed only where its base is."""
    add_base(platform, "tiny")


@pytest.fixture(autouse=True)
def honest(engine: ScriptedEngine) -> None:
    """An engine that computes what the fake trainer says it computed."""

    def scored(score: Score) -> Scored:
        assert score.adapter is not None
        return Scored([-0.5], [[3, 4]], [[-0.5, -1.0]], "fp32")

    engine.scored = scored


def paused(shop: Shop, job: Job, after: int = 0) -> Job:
    """The job, claimed for training and paused as soon as it has done more than `after` steps."""
    lease = shop.claim()
    run = shop.run(lease)
    while not run.has_trainer or len(metrics(shop, job)) < after:
        run.step()
    pause_job(shop.platform, shop.caller, job.id)
    lease.pause.set()
    return shop.finish(run)


def metrics(shop: Shop, job: Job) -> list[int]:
    return [event.data["step"] for event in shop.events(job) if event.type == "metrics"]


def named(shop: Shop, job: Job) -> dict[int, str]:
    """Checkpoints by step."""
    kept = list_checkpoints(shop.platform, shop.caller, job.id).data
    return {one.step: one.model for one in kept}


def slow(shop: Shop) -> Job:
    return shop.queue_job(Script(steps=100_000, step_s=0.01))


def hurry(shop: Shop, job: Job) -> None:
    """The run has no further step to do."""
    from afina.pipeline.testing import write_script

    write_script(shop.paths(job), Script(steps=metrics(shop, job)[-1]))


def test_a_job_paused_again_and_again_without_a_step_goes_on(shop: Shop) -> None:
    job = slow(shop)
    assert paused(shop, job, after=1).status is JobStatus.PAUSED
    names = named(shop, job)
    for _ in range(exits.SAME_STEP_LIMIT + 1):
        resume_job(shop.platform, shop.caller, job.id)
        assert paused(shop, job).status is JobStatus.PAUSED
    assert names.items() <= named(shop, job).items()
    resume_job(shop.platform, shop.caller, job.id)
    hurry(shop, job)
    done = shop.finish(shop.run(shop.claim()))
    assert (done.status, done.error) == (JobStatus.SUCCEEDED, None)
    assert metrics(shop, job) == list(range(1, len(metrics(shop, job)) + 1))


def test_the_model_of_a_step_that_was_paused_at_is_its_jobs_own(shop: Shop) -> None:
    job = slow(shop)
    paused(shop, job, after=1)
    (step,) = named(shop, job)
    resume_job(shop.platform, shop.caller, job.id)
    hurry(shop, job)
    done = shop.finish(shop.run(shop.claim()))
    assert done.status is JobStatus.SUCCEEDED
    assert done.fine_tuned_model is not None
    assert named(shop, job) == {step: done.fine_tuned_model}


def test_a_deleted_snapshot_gets_another_name_when_its_step_is_paused_at_again(
    shop: Shop,
) -> None:
    job = slow(shop)
    paused(shop, job, after=1)
    ((step, name),) = named(shop, job).items()
    models.delete_model(shop.platform, shop.caller, name)
    resume_job(shop.platform, shop.caller, job.id)
    paused(shop, job)
    again = named(shop, job)[max(named(shop, job))]
    assert again != name
    assert models.get_model(shop.platform, shop.caller, again)
    assert step in named(shop, job)
