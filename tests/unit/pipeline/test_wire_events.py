"""A run's events become the wire's, once each, whatever attempt tells them."""

from __future__ import annotations

import pytest
from tests.unit.pipeline.conftest import run_spec

from afina.domain.clock import ManualClock
from afina.domain.codec import encode
from afina.domain.ids import Ids
from afina.domain.jobs import Job, JobStatus
from afina.domain.rates import TrainingRate
from afina.domain.runs import RunEvent
from afina.domain.sayings import say
from afina.pipeline.follow import FINISH_S, START_S, Pace, first_guess
from afina.pipeline.foresight import load_of
from afina.pipeline.wire_events import EventWriter, results_csv

JOB = Job("ftjob-1", "p", JobStatus.RUNNING, 0, "base", "base", "file-1", 1)


def step(sequence: int, number: int, **more: float) -> RunEvent:
    data = {
        "step": number,
        "total_steps": 3,
        "epoch": 1,
        "train_loss": 0.25,
        "train_mean_token_accuracy": 0.5,
        "learning_rate": 1e-4,
        "tokens": 10 * number,
        **more,
    }
    return RunEvent(sequence, 100.5 + number, "step", data)


def writer() -> EventWriter:
    return EventWriter(JOB, Ids(1), ManualClock(7.0))


def test_a_step_is_told_in_the_wires_words_and_metrics() -> None:
    (event,) = writer().from_run([step(2, 1, valid_loss=0.3, full_valid_loss=0.4)])
    assert event.message == (
        "Step 1/3: training loss=0.25, validation loss=0.30, full validation loss=0.40"
    )
    assert event.type == "metrics"
    assert event.created_at == 101
    assert set(event.data) == {
        "step", "total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss",
        "full_valid_loss",
    }  # fmt: skip


def test_a_step_has_one_number_whatever_its_place_in_the_file() -> None:
    (first,) = writer().from_run([step(5, 3)])
    (again,) = writer().from_run([step(9, 3)])
    assert (first.source, first.sequence) == (again.source, again.sequence) == ("run", 3)


def test_a_warning_is_told_once_a_job_and_other_kinds_are_the_workers_alone() -> None:
    warning = RunEvent(2, 1.0, "warning", {"code": "c", "message": "Other threads."})
    told = writer().from_run(
        [RunEvent(1, 1.0, "started"), warning, RunEvent(7, 9.0, "warning", warning.data)]
    )
    assert [event.message for event in told] == ["Other threads.", "Other threads."]
    assert told[0].sequence == told[1].sequence > 10**6
    assert told[0].level == "warn"
    halved = say("bins_halved", step=3, n=256, before=512)
    named = {"code": "memory", "message": halved.text, "said": [encode(halved)]}
    (event,) = writer().from_run([RunEvent(2, 1.0, "warning", named)])
    assert (event.message, event.said) == (halved.text, (halved,))


def test_the_results_file_has_a_row_a_step_and_blanks() -> None:
    rows = [step(2, 1), step(3, 2, valid_loss=0.3, valid_mean_token_accuracy=0.25), step(4, 2)]
    assert results_csv([rows[0], rows[2], rows[1]]).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,0.25000,0.50000,,\n"
        "2,0.25000,0.50000,0.30000,0.25000\n"
    )


def test_the_pace_says_nothing_before_two_steps_and_then_the_time_that_is_left() -> None:
    pace = Pace()
    pace.add(1, 10, 100.0)
    assert pace.finish() is None
    pace.add(3, 10, 104.0)
    assert pace.finish() == 104.0 + 7 * 2.0 + FINISH_S


def test_the_first_guess_comes_from_a_known_rate_or_is_none() -> None:
    spec = run_spec(JOB)
    probed = TrainingRate(50.0)
    assert first_guess(probed, spec, 1000.0) == round(
        1000 + START_S + probed.training_seconds(load_of(spec)) + FINISH_S
    )
    learned = TrainingRate(50.0, overhead_s=3.0, jobs=2)
    assert first_guess(learned, spec, 1000.0) == round(1000 + learned.seconds(load_of(spec)))
    assert first_guess(None, spec, 1000.0) is None


def test_the_pace_is_that_of_the_last_steps() -> None:
    pace = Pace()
    for number in range(1, 101):
        pace.add(number, 200, float(number))
    for number in range(101, 181):
        pace.add(number, 200, 100.0 + (number - 100) * 3)
    assert pace.finish() == 100.0 + 80 * 3 + 20 * 3 + FINISH_S


def test_the_time_left_begins_at_the_estimate_and_ends_at_the_pace() -> None:
    pace = Pace(promise=1060.0)
    pace.add(1, 100, 1000.0)
    assert pace.finish() is None, "one step has no pace"
    pace.add(2, 100, 1000.1)
    early = pace.finish()
    assert early is not None
    assert 1050 < early < 1060, "two steps weigh little against what finished jobs took"
    for step in range(3, 26):
        pace.add(step, 100, 1000 + 0.1 * (step - 1))
    sure = pace.finish()
    assert sure == pytest.approx(1000 + 2.4 + 7.5 + FINISH_S), "after a quarter the pace counts"
