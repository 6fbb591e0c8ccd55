"""A trainer that loads while its job is prepared: one for a job, for no longer than its job."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from tests.tiny import write_tiny_tokenizer
from tests.unit.pipeline.conftest import Shop, run_spec
from tests.unit.pipeline.test_prepare import chat, create, upload

from afina.domain.clock import ManualClock
from afina.domain.codec import encode
from afina.domain.jobs import JobStatus
from afina.domain.models import BaseModel
from afina.pipeline import warm as warm_module
from afina.pipeline.held import HeldLease
from afina.pipeline.launcher import Command, Trainer, start_trainer
from afina.pipeline.run_files import write_spec, write_wish
from afina.pipeline.testing import COMMAND, Script, write_script
from afina.pipeline.training_run import TrainingRun
from afina.pipeline.warm import PATIENCE_S, WarmTrainer
from afina.store import jobs

pytestmark = pytest.mark.long


@pytest.fixture
def preparing(shop: Shop) -> HeldLease:
    """The lease of a job that is being prepared, on a base that can be tuned."""
    folder = shop.platform.settings.models / "tiny"
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    record = BaseModel("tiny", "/moved/away", "0" * 64, 1, context_tokens=512)
    (folder / "afina.json").write_text(json.dumps(encode(record)))
    return HeldLease(create(shop, upload(shop, "".join(chat(n) for n in range(12)))))


@pytest.fixture
def warm(shop: Shop) -> WarmTrainer:
    shop.platform.settings.training.threads = 1
    return WarmTrainer(shop.platform, Command(COMMAND))


def waiting(warm: WarmTrainer) -> Trainer | None:
    return warm._ready.trainer if warm._ready is not None else None


def test_a_job_in_preparation_gets_one_trainer_that_waits_and_its_training_takes_it(
    shop: Shop, preparing: HeldLease, warm: WarmTrainer
) -> None:
    warm.follow(preparing)
    first = waiting(warm)
    assert first is not None
    assert first.poll() is None
    warm.follow(preparing)
    assert waiting(warm) is first
    assert warm.take(preparing.job.id, 1) is first
    assert waiting(warm) is None
    write_script(shop.paths(preparing.job), Script(steps=2))
    write_wish(shop.paths(preparing.job), None)
    first.go()
    assert first.process.wait(30) == 0
    assert shop.paths(preparing.job).result.exists()


def test_a_run_takes_the_trainer_that_waits_for_it_as_its_first_attempt(
    shop: Shop, preparing: HeldLease, warm: WarmTrainer
) -> None:
    warm.follow(preparing)
    trainer = waiting(warm)
    assert trainer is not None
    write_script(shop.paths(preparing.job), Script(steps=100_000, step_s=0.01))
    write_spec(shop.paths(preparing.job), run_spec(preparing.job))
    with shop.platform.database.write() as tx:
        job = jobs.move_job(tx, preparing.job.id, preparing.job.fence, JobStatus.QUEUED)
    lease = shop.claim()
    assert lease.job.id == job.id
    run = TrainingRun(shop.platform, lease, Command(COMMAND), warm)
    run.step()
    assert run.has_trainer
    assert json.loads((shop.paths(job).root / "trainer.lock").read_text())["pid"] == trainer.pid
    assert [p.name for p in shop.paths(job).root.glob("attempt-*")] == ["attempt-1"]
    while not any(event.type == "metrics" for event in shop.events(job)):
        run.step()
    lease.lost.set()
    run.step()
    assert trainer.poll() is not None


@pytest.mark.parametrize("wish", ["cancel", "lost"])
def test_the_trainer_of_a_job_that_goes_away_ends(
    preparing: HeldLease, warm: WarmTrainer, wish: str
) -> None:
    warm.follow(preparing)
    trainer = waiting(warm)
    assert trainer is not None
    getattr(preparing, wish).set()
    warm.follow(preparing)
    assert waiting(warm) is None
    assert trainer.poll() is not None


def test_a_job_that_never_comes_to_training_keeps_its_trainer_for_some_seconds_alone(
    shop: Shop, preparing: HeldLease
) -> None:
    clock = ManualClock(1000.0)
    platform = replace(shop.platform, clock=clock)
    warm = WarmTrainer(platform, Command(COMMAND))
    warm.follow(preparing)
    trainer = waiting(warm)
    assert trainer is not None
    warm.follow(None)
    assert waiting(warm) is trainer
    clock.advance(PATIENCE_S + 1)
    warm.follow(None)
    assert trainer.poll() is not None
    warm.follow(preparing)
    assert waiting(warm) is None


def test_a_trainer_of_another_job_or_of_other_threads_is_ended_and_not_taken(
    preparing: HeldLease, warm: WarmTrainer
) -> None:
    warm.follow(preparing)
    trainer = waiting(warm)
    assert trainer is not None
    assert warm.take("another job", 1) is None
    assert trainer.poll() is not None


def test_nothing_is_started_for_a_large_file_or_where_another_trainer_lives(
    shop: Shop, preparing: HeldLease, warm: WarmTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start_trainer(
        shop.paths(preparing.job),
        1,
        1,
        Command((sys.executable, "-c", "import time; time.sleep(60)")),
    )
    warm.follow(preparing)
    assert waiting(warm) is None
    assert other.poll() is None
    other.kill()
    monkeypatch.setattr(warm_module, "LARGEST_FILE", 10)
    second = WarmTrainer(shop.platform, Command(COMMAND))
    second.follow(preparing)
    assert waiting(second) is None


def test_a_waiting_trainer_whose_worker_dies_leaves_without_a_word(
    shop: Shop, preparing: HeldLease, warm: WarmTrainer
) -> None:
    warm.follow(preparing)
    trainer = waiting(warm)
    assert trainer is not None
    trainer._close_gate()
    assert trainer.process.wait(30) == 0
    assert not shop.paths(preparing.job).events.exists()
