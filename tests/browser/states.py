"""A platform with a job in each state, without engine or worker: what pages show, not how it came."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from tests.platforms import BASE, add_base, first_caller, publish, run_to_running, start_job
from tests.unit.web.site import Site

from afina.domain.events import JobEvent
from afina.domain.ids import EVENT
from afina.domain.jobs import Job, JobError, JobStatus
from afina.domain.sayings import say
from afina.service.preparing import NAME
from afina.store import events, jobs

LONG = "a-name-so-long-that-no-column-of-any-table-was-made-to-hold-it-1"
TOTAL = 40


def furnish(site: Site, scratch: Path, *, keep_base: bool = False) -> dict[str, str]:
    """Makes the jobs; gives the address of each state's page, and of others that need jobs. The
    base is taken away again, unless it is kept."""
    platform = site.platform
    add_base(platform, BASE)
    caller = first_caller(platform)
    places: dict[str, str] = {}

    def begin(name: str, suffix: str) -> Job:
        job = start_job(platform, caller, suffix=suffix)
        places[name] = f"/jobs/{job.id}"
        return job

    begin("succeeded", "bard")
    job = run_to_running(platform)
    _step(site, job, TOTAL)
    done = publish(platform, job, scratch)
    places["model"] = f"/models/show?name={done.fine_tuned_model}"
    begin("failed", "broken-rows")
    job = run_to_running(platform)
    row = say("row", file="training", line=41, rule="empty-content")
    message = "Line 41 [empty-content]: a message is empty."
    error = JobError("invalid_file_format", message, "training_file", (row,))
    with platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.FAILED, stage="validating", error=error)
    begin("running", LONG)
    job = run_to_running(platform)
    _step(site, job, 12)
    with platform.database.write() as tx:
        jobs.update_job(tx, job.id, job.fence, stage="training", started_at=1, estimated_finish=2)
    begin("paused", "resting")
    job = run_to_running(platform)
    _step(site, job, 20)
    with platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.PAUSED, stage="paused")
    job = begin("preparing", "moderated-now")
    with platform.database.write() as tx:
        jobs.update_job(tx, job.id, job.fence, stage="moderating")
    run = platform.settings.runs / job.id
    run.mkdir(parents=True, exist_ok=True)
    (run / NAME).write_text('{"stage": "moderating", "share": 0.42}')
    chosen = [places[name].rpartition("/")[2] for name in ("succeeded", "running", "paused")]
    places["compare"] = "/jobs/compare?" + "&".join(f"job={one}" for one in chosen)
    if not keep_base:
        shutil.rmtree(platform.settings.models)
    return places


def _step(site: Site, job: Job, count: int) -> None:
    """As many steps as a trainer would have told of, with a validation at each tenth."""
    told = []
    for step in range(1, count + 1):
        data: dict[str, Any] = {"step": step, "total_steps": TOTAL}
        data["train_loss"] = 3 / math.sqrt(step)
        data["train_mean_token_accuracy"] = 1 - 1 / (1 + step)
        if step % 10 == 0:
            data["full_valid_loss"] = 3.2 / math.sqrt(step)
        told.append(
            JobEvent(
                id=site.platform.ids.new(EVENT),
                job_id=job.id,
                created_at=job.created_at,
                level="info",
                message=f"Step {step}/{TOTAL}",
                type="metrics",
                data=data,
                source="run",
                sequence=step,
            )
        )
    with site.platform.database.write() as tx:
        events.append_events(tx, job.id, job.fence, told)
