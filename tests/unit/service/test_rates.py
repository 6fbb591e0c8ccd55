"""The record of finished runs on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.pipeline.conftest import run_spec

from afina.domain.jobs import Job, JobStatus
from afina.domain.models import BaseModel
from afina.domain.rates import OVERHEAD_S
from afina.domain.runs import RunResult, RunSpec
from afina.domain.ways import Way
from afina.pipeline.foresight import load_of
from afina.service.rates import note_run, rate_for
from afina.settings import Settings

SPEC: RunSpec = run_spec(Job("ftjob-1", "p", JobStatus.RUNNING, 0, "base", "base", "file-1", 1))
BASE = BaseModel("tiny", "/", SPEC.base.sha256, 1, capabilities={"train_tokens_per_s": 50.0})
DONE = RunResult(1, "succeeded", 10, 4000, 2000, 10.0, 400.0, 1, (), (), "fp32")


def test_jobs_that_finished_here_answer_before_the_probe(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "new")
    probed = rate_for(settings, BASE)
    assert probed is not None
    assert (probed.tokens_per_s, probed.jobs, probed.overhead_s) == (50.0, 0, OVERHEAD_S)
    note_run(settings, SPEC, DONE, 7.0)
    note_run(settings, SPEC, replace(DONE, train_seconds=20.0), 8.0)
    learned = rate_for(settings, BASE)
    assert learned is not None
    assert (learned.jobs, learned.overhead_s) == (2, 7.5)
    load = replace(load_of(SPEC), tokens=DONE.trained_tokens, steps=10, learned=2000)
    share = DONE.trained_tokens / SPEC.training.tokens
    load = replace(load, rows=round(SPEC.training.rows * share))
    assert learned.training_seconds(load) == pytest.approx(40 / 3)
    assert settings.rates.stat().st_mode & 0o777 == 0o600


def test_a_damaged_record_costs_its_damaged_lines_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    note_run(settings, SPEC, DONE, None)
    with settings.rates.open("ab") as file:
        file.write(b'{"tokens": 3}\n\xff\n{"half')
    learned = rate_for(settings, BASE)
    assert learned is not None
    assert learned.jobs == 1


def test_every_way_is_guessed_from_the_probe_until_a_job_has_ended(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    found = rate_for(settings, BASE, way=Way("full"))
    assert found is not None
    assert (found.tokens_per_s, found.jobs) == (50.0, 0)
    assert rate_for(settings, replace(BASE, capabilities={})) is None
    busy = replace(BASE, capabilities={"train_tokens_per_s": 50.0, "train_rate_busy": True})
    guessed = rate_for(settings, busy)
    assert guessed is not None
    assert guessed.busy
