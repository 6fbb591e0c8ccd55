"""What the validation loss decided is told: where a run stopped, and which epoch is the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.unit.pipeline.conftest import run_spec

from afina.domain.jobs import Job, JobStatus
from afina.domain.methods import EarlyStopping
from afina.domain.runs import RunCheckpoint, RunEvent, RunResult, RunSpec
from afina.domain.sayings import text_of
from afina.pipeline.finish import how_it_ended

JOB = Job("ftjob-1", "p", JobStatus.RUNNING, 0, "base", "base", "file-1", 1)
LOSSES = (5.0, 4.5, 4.75, 4.6)


def spec(**changes: object) -> RunSpec:
    return replace(run_spec(JOB), epochs=9, **changes)  # type: ignore[arg-type]


def events(losses: Sequence[float]) -> list[RunEvent]:
    """Two steps an epoch; the second has the loss of the whole validation file."""
    told = []
    for step in range(1, 2 * len(losses) + 1):
        whole = {} if step % 2 else {"full_valid_loss": losses[step // 2 - 1]}
        told.append(RunEvent(step, 0.0, "step", {"step": step, "train_loss": 1.0, **whole}))
    return told


def result(model_step: int, *, stopped_early: bool) -> RunResult:
    loss = LOSSES[model_step // 2 - 1]
    kept = RunCheckpoint(model_step, "checkpoints/x", {"full_valid_loss": loss})
    return RunResult(
        1, "succeeded", 8, 80, 80, 1.0, 80.0, 1, (kept,), (), "fp32", stopped_early=stopped_early
    )


def test_a_run_that_stopped_early_says_when_why_and_what_its_lowest_loss_was() -> None:
    stopping = spec(early_stopping=EarlyStopping(patience=2))
    said = how_it_ended(stopping, result(8, stopped_early=True), events(LOSSES))
    assert text_of(said) == (
        "Stopped early after epoch 4 of 9: for 2 epochs the validation loss has not fallen as "
        "early_stopping asks; its lowest is 4.50, after epoch 2"
    )


def test_a_run_with_the_best_checkpoint_says_which_epoch_is_the_model() -> None:
    best = spec(best_checkpoint=True)
    said = how_it_ended(best, result(4, stopped_early=False), events(LOSSES))
    assert text_of(said) == (
        "Of the epochs, that which ended at step 4 becomes the model: its validation loss of 4.50 "
        "is the lowest"
    )


def test_a_run_that_went_to_its_last_epoch_says_nothing_of_it() -> None:
    stopping = spec(early_stopping=EarlyStopping(patience=5))
    assert how_it_ended(stopping, result(8, stopped_early=False), events(LOSSES)) == ()
    assert how_it_ended(spec(), result(8, stopped_early=False), ()) == ()
