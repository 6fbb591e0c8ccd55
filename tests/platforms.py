"""A platform in a folder of the test's own: real database and blobs, a clock that stands still."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.postgres import database_for, on_postgres
from tests.s3 import bucket_for, on_s3

from afina.domain.accounts import Caller, Organization, Project
from afina.domain.clock import ManualClock
from afina.domain.codec import encode
from afina.domain.files import StoredFile
from afina.domain.ids import Ids
from afina.domain.jobs import Job, JobStatus
from afina.domain.models import BaseModel
from afina.service.files import upload_file
from afina.service.gate import GateOutcome
from afina.service.jobs import JobRequest, create_job
from afina.service.keys import authenticate, ensure_first_key
from afina.service.platform import Platform
from afina.service.publish import (
    Publication,
    PublishedTune,
    TuneFacts,
    publish_models,
    store_tune,
)
from afina.settings import Settings
from afina.store import accounts, jobs, leases, models
from afina.store.database import Database

BASE = "tiny-base"
ROW = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}\n'


@cache
def migrated_database() -> bytes:
    """An empty database of today's schema: tests begin with a copy, not with a migration."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "afina.db"
        database = Database.open(f"sqlite:///{path}")
        database.migrate()
        with database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.exec_driver_sql("BEGIN")
        database.close()
        return path.read_bytes()


def open_platform(data: Path, seed: int = 1, **settings: Any) -> Platform:
    """A platform in `data` with one base model."""
    if on_postgres():
        settings.setdefault("database", database_for(data))
    if on_s3():
        settings.setdefault("s3", bucket_for(data))
    loaded = Settings.load(data=data, **settings)
    data.mkdir(parents=True, exist_ok=True)
    if loaded.database is None and not (data / "afina.db").exists():
        (data / "afina.db").write_bytes(migrated_database())
    platform = Platform.open(loaded, ManualClock(), Ids(seed))
    add_base(platform, BASE)
    return platform


def clock_of(platform: Platform) -> ManualClock:
    assert isinstance(platform.clock, ManualClock)
    return platform.clock


def add_base(platform: Platform, base_id: str, **changes: Any) -> BaseModel:
    """Writes the record of a base model."""
    folder = platform.settings.models / base_id
    folder.mkdir(parents=True, exist_ok=True)
    base = replace(BaseModel(base_id, str(folder), "b" * 64, 1_600_000_000), **changes)
    (folder / "afina.json").write_text(json.dumps(encode(base)))
    return base


def first_caller(platform: Platform) -> Caller:
    """The owner of the first key."""
    return authenticate(platform, ensure_first_key(platform).read_text().strip())


def other_caller(platform: Platform) -> Caller:
    """Somebody of another project in another organization."""
    ids = platform.ids
    organization = Organization(ids.new("org-"), ids.new("", 8).lower(), "Other", 1)
    project = Project(ids.new("proj_"), organization.id, "Other", 1)
    with platform.database.write() as tx:
        accounts.insert_organization(tx, organization)
        accounts.insert_project(tx, project)
    return Caller(project.id, ids.new("key_"), organization.id)


def upload(platform: Platform, caller: Caller, content: bytes = ROW * 10) -> StoredFile:
    """A training file."""
    return upload_file(platform, caller, [content], "train.jsonl", "fine-tune")


def start_job(platform: Platform, caller: Caller, **request: Any) -> Job:
    """A new job on a new file."""
    file = request.pop("training_file", None) or upload(platform, caller).id
    return create_job(platform, caller, JobRequest(BASE, file, **request))


def claim(platform: Platform, owner: str = "worker-1", lease_s: float = 60.0) -> Job | None:
    """The next job that a worker would get, in any state that has one."""
    live = [status for status in JobStatus if not status.is_terminal]
    with platform.database.write() as tx:
        now = platform.clock.now()
        return leases.claim_job(tx, statuses=live, owner=owner, now=now, lease_s=lease_s)


def run_to_running(platform: Platform) -> Job:
    """Claims the next job and brings it to `running`."""
    job = claim(platform)
    assert job is not None
    with platform.database.write() as tx:
        jobs.move_job(tx, job.id, job.fence, JobStatus.QUEUED)
        return jobs.move_job(tx, job.id, job.fence, JobStatus.RUNNING)


def tune_files(folder: Path, text: str) -> dict[str, Path]:
    """Two small files in the place of an adapter's."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("adapter_config.json", "adapter_model.safetensors")
    for name in names:
        (folder / name).write_text(f"{name} {text}")
    return {name: folder / name for name in names}


def publish(
    platform: Platform,
    job: Job,
    scratch: Path,
    steps: Sequence[int] = (10, 20),
    row_losses: bytes | None = None,
    gate: GateOutcome | None = None,
) -> Job:
    """Publishes a running job with a checkpoint at each of `steps`; the last is the model."""
    facts = TuneFacts("b" * 64, "c" * 64, "d" * 64, {"job": job.id})
    tunes = []
    for step in steps:
        files = tune_files(scratch / f"{job.id}-{step}", f"{job.id} {step}")
        manifest = store_tune(platform, job, facts, files)
        tunes.append(PublishedTune(step, manifest, {"step": float(step), "train_loss": 1 / step}))
    publication = Publication(
        tuple(tunes),
        1234,
        "c" * 64,
        results_csv=b"step,train_loss\n1,0.5\n",
        row_losses_csv=row_losses,
        parity={"passed": True},
        gate=gate or GateOutcome("off", "default"),
    )
    return publish_models(platform, job, publication)


def checkpoint_of(platform: Platform, caller: Caller) -> str:
    """A model that a job kept on its way, before its last step."""
    with platform.database.read() as tx:
        found = models.list_models(tx, caller.project_id)
    return next(model.name for model in found if model.step is not None)
