"""A platform in a temporary directory, a queued job with a run directory, and a scripted engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from afina.domain.events import JobEvent
from afina.domain.jobs import Job, JobStatus
from afina.domain.runs import (
    BaseSpec,
    DataSpec,
    LoraSpec,
    OptimizerSpec,
    RunPaths,
    RunSpec,
)
from afina.pipeline.held import HeldLease, LeaseKeeper
from afina.pipeline.lanes import claim
from afina.pipeline.launcher import Command
from afina.pipeline.run_files import write_spec
from afina.pipeline.testing import COMMAND, Script, write_script
from afina.pipeline.training_run import TrainingRun
from afina.service import keys
from afina.service.platform import Caller, Platform
from afina.serving.testing import ScriptedEngine
from afina.settings import Settings
from afina.store import events, jobs

TRAIN = (JobStatus.QUEUED, JobStatus.RUNNING)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    settings = Settings.load(data=tmp_path / "data", moderation={"wait_s": 0})
    opened = Platform.open(settings)
    keys.ensure_first_key(opened)
    yield opened
    opened.close()


@pytest.fixture
def caller(platform: Platform) -> Caller:
    secret = (platform.settings.data / "api-key").read_text().strip()
    return keys.authenticate(platform, secret)


@pytest.fixture
def engine(platform: Platform) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(platform.settings.engine_socket) as running:
        yield running


@dataclass
class Shop:
    """What tests do to jobs."""

    platform: Platform
    caller: Caller
    made: int = 0

    def queue_job(self, script: Script | None = None) -> Job:
        """A job that is prepared, whose trainer will follow `script`."""
        self.made += 1
        job = Job(
            id=f"ftjob-{self.made}",
            project_id=self.caller.project_id,
            status=JobStatus.QUEUED,
            created_at=1,
            model="tiny",
            requested_model="tiny",
            training_file="file-1",
            seed=1,
        )
        with self.platform.database.write() as tx:
            jobs.insert_job(tx, job, self.caller, self.platform.clock.now())
        write_script(self.paths(job), script or Script())
        write_spec(self.paths(job), run_spec(job))
        return job

    def paths(self, job: Job) -> RunPaths:
        return RunPaths(self.platform.settings.runs / job.id)

    def claim(self, owner: str = "worker") -> HeldLease:
        """Take the oldest job for training; the lease is held by a keeper of its own."""
        job = claim(self.platform, owner, TRAIN)
        assert job is not None
        return self.keeper().hold(job)

    def keeper(self) -> LeaseKeeper:
        return LeaseKeeper(self.platform)

    def run(self, lease: HeldLease) -> TrainingRun:
        return TrainingRun(self.platform, lease, Command(COMMAND))

    def finish(self, run: TrainingRun) -> Job:
        """Step until the lane has done with the job."""
        while not run.is_over:
            run.step()
            time.sleep(0.002)  # leaves the processor to the trainer
        return self.job(run.job.id)

    def job(self, job_id: str) -> Job:
        with self.platform.database.read() as tx:
            job = jobs.get_job(tx, job_id)
        assert job is not None
        return job

    def events(self, job: Job) -> list[JobEvent]:
        with self.platform.database.read() as tx:
            return events.all_events(tx, job.id)


@pytest.fixture
def shop(platform: Platform, caller: Caller) -> Shop:
    return Shop(platform, caller)


def run_spec(job: Job) -> RunSpec:
    return RunSpec(
        format=1,
        job_id=job.id,
        base=BaseSpec("tiny", "/nowhere", "0" * 64),
        lora=LoraSpec(),
        training=DataSpec("/nowhere", "1" * 64, 10, 100, 50, 20),
        validation=None,
        epochs=1,
        batch_size=1,
        optimizer=OptimizerSpec(1e-4, 1, 5),
        seed=1,
        precision="fp32",
        threads=1,
        bin_capacities=(128,),
        end_tokens=(2,),
        settings={"template_sha256": "2" * 64},
    )
