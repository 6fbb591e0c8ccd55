"""A store as a busy year leaves it, for benchmarks/api.py: 100,000 jobs and what belongs to them.

Two projects' rows lie between one another, so that a query without a fitting index has much to
read past. Rows are written by the tables, in one transaction; one blob is behind every file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table, insert

from afina.domain.codec import encode
from afina.domain.ids import Ids
from afina.domain.jobs import Job, JobStatus
from afina.domain.ledger import EntryKind
from afina.domain.manifests import blob_path
from afina.domain.models import ModelState, TunedModel
from afina.service.keys import authenticate, ensure_first_key
from afina.service.platform import Platform
from afina.service.projects import create_project
from afina.settings import Settings
from afina.store.database import Tx
from afina.store.tables import (
    BLOB_REFS,
    BLOBS,
    CHECKPOINTS,
    FILES,
    JOB_EVENTS,
    JOB_LABELS,
    JOBS,
    LEDGER,
    MODELS,
)
from afina.store.wire_tables import BATCHES

ROW = json.dumps(
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * 150}]}
)
CONTENT = (ROW + "\n").encode() * 12
AT_ONCE = 5000
START = 1_750_000_000
ENDS = (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True)
class Sizes:
    """How many rows there are of each kind."""

    jobs: int
    models: int = 1000
    events_a_job: int = 3
    long_job_events: int = 5000
    other_share: float = 0.2
    """Part of the rows that is the second project's."""


@dataclass(frozen=True)
class Filled:
    """What a client may ask for: the first project's ids, and its key."""

    key: str
    base: str
    jobs: list[str]
    long_job: str
    files: list[str]
    models: list[str]


def fill(data: Path, base_folder: Path, sizes: Sizes, seed: int = 7) -> Filled:
    """Makes the data directory `data` with the base of `base_folder` and so many rows."""
    shutil.copytree(base_folder, data / "models" / base_folder.name, copy_function=_link)
    platform = Platform.open(Settings(data=data))
    try:
        ensure_first_key(platform)
        key = (data / "api-key").read_text().strip()
        caller = authenticate(platform, key)
        other = create_project(platform, caller, "another project").id
        filler = _Filler(platform, (caller.organization_id, caller.project_id, other), sizes, seed)
        filler.key_id = caller.key_id
        filler.base = base_folder.name
        with platform.database.write() as tx:
            filler.run(tx)
        return Filled(
            key, base_folder.name, filler.mine, filler.long_job, filler.my_files,
            filler.my_models,
        )  # fmt: skip
    finally:
        platform.close()


def _link(source: str, target: str) -> str:
    os.link(os.path.realpath(source), target)
    return target


class _Filler:
    def __init__(
        self, platform: Platform, owners: tuple[str, str, str], sizes: Sizes, seed: int
    ) -> None:
        self._platform = platform
        self._organization, *self._projects = owners
        self._sizes = sizes
        self._random = random.Random(seed)
        self._ids = Ids(seed)
        self.key_id = self.base = ""
        self.mine: list[str] = []
        self.my_files: list[str] = []
        self.my_models: list[str] = []
        self.long_job = ""
        self._jobs: list[tuple[str, str]] = []
        self._files: list[tuple[str, str]] = []

    def run(self, tx: Tx) -> None:
        """All rows, in the order in which they name one another."""
        self._blob(tx)
        count = self._sizes.jobs
        self._put(tx, FILES, map(self._file, range(count)))
        refs = ((self._sha, "file", id_) for id_, _ in self._files)
        self._put(
            tx, BLOB_REFS,
            ({"sha256": s, "holder_kind": k, "holder_id": i} for s, k, i in refs),
        )  # fmt: skip
        self._put(tx, JOBS, map(self._job, range(count)))
        labelled = (id_ for n, (id_, _) in enumerate(self._jobs) if n % 10 == 0)
        self._put(
            tx, JOB_LABELS,
            ({"job_id": id_, "key": "team", "value": f"team-{n % 50}"}
             for n, id_ in enumerate(labelled)),
        )  # fmt: skip
        self.long_job = self.mine[-1]
        self._put(tx, JOB_EVENTS, self._events())
        self._put(tx, CHECKPOINTS, self._checkpoints())
        self._put(tx, MODELS, map(self._model, range(self._sizes.models)))
        self._put(tx, LEDGER, map(self._entry, range(count)))
        self._put(tx, BATCHES, map(self._batch, range(count // 50)))

    def _put(self, tx: Tx, table: Table, rows: Iterator[dict[str, Any]]) -> None:
        pending: list[dict[str, Any]] = []
        for row in rows:
            pending.append(row)
            if len(pending) == AT_ONCE:
                tx.execute(insert(table), pending)
                pending = []
        if pending:
            tx.execute(insert(table), pending)

    def _blob(self, tx: Tx) -> None:
        staged = self._platform.blobs.stage([CONTENT])
        self._platform.blobs.place(staged)
        assert blob_path(self._platform.settings.blobs, staged.sha256).is_file()
        self._sha = staged.sha256
        row = {"sha256": staged.sha256, "bytes": staged.size_bytes, "created_at": START}
        tx.execute(insert(BLOBS), [row])

    def _project(self) -> str:
        return self._projects[self._random.random() < self._sizes.other_share]

    def _owned(self, number: int, project: str) -> dict[str, Any]:
        return {
            "organization_id": self._organization,
            "project_id": project,
            "order_key": (START + number) * 1_000_000,
            "created_at": START + number,
        }

    def _file(self, number: int) -> dict[str, Any]:
        id_, project = self._ids.new("file-"), self._project()
        self._files.append((id_, project))
        purpose = ("fine-tune", "batch")[number % 7 == 0]
        if project == self._projects[0] and purpose == "fine-tune":
            self.my_files.append(id_)
        return self._owned(number, project) | {
            "id": id_,
            "filename": f"rows-{number}.jsonl",
            "purpose": purpose,
            "bytes": len(CONTENT),
            "sha256": self._sha,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }

    def _job(self, number: int) -> dict[str, Any]:
        file, project = self._files[number]
        id_ = self._ids.new("ftjob-")
        self._jobs.append((id_, project))
        if project == self._projects[0]:
            self.mine.append(id_)
        status = self._random.choice(ENDS)
        job = Job(
            id=id_, project_id=project, status=status, created_at=START + number,
            model=self.base, requested_model=self.base, training_file=file, seed=number,
            metadata={"team": f"team-{number // 10 % 50}"} if number % 10 == 0 else None,
            started_at=START + number + 5, finished_at=START + number + 95,
            trained_tokens=15_237, stage="done",
            fine_tuned_model=f"ft:{self.base}:local::{number:08d}",
        )  # fmt: skip
        values = {name: encode(getattr(job, name)) for name in Job.__dataclass_fields__}
        return values | self._owned(number, project) | {"key_id": self.key_id}

    def _events(self) -> Iterator[dict[str, Any]]:
        for number, (job, _) in enumerate(self._jobs):
            count = self._sizes.long_job_events if job == self.long_job else None
            for order in range(1, 1 + (count or self._sizes.events_a_job)):
                yield {
                    "id": self._ids.new("ftevent-", 16),
                    "job_id": job, "order_key": order, "source": "platform", "sequence": order,
                    "created_at": START + number + order, "level": "info", "type": "metrics",
                    "message": f"Step {order}/39: training loss=3.21",
                    "data": {"step": order, "train_loss": 3.21, "tokens": 512},
                }  # fmt: skip

    def _checkpoints(self) -> Iterator[dict[str, Any]]:
        for number, (job, _) in enumerate(self._jobs):
            for step in (13, 26) if number % 2 else ():
                yield {
                    "id": self._ids.new("ftckpt_"), "job_id": job, "created_at": START + number,
                    "model": f"ft:{self.base}:local::{number:08d}:ckpt-step-{step}",
                    "step": step, "metrics": {"train_loss": 3.2},
                }  # fmt: skip

    def _model(self, number: int) -> dict[str, Any]:
        job, project = self._jobs[number]
        name = f"ft:{self.base}:local::{number:08d}"
        if project == self._projects[0]:
            self.my_models.append(name)
        model = TunedModel(
            name=name, project_id=project, base_id=self.base, manifest=self._sha,
            created_at=START + number, job_id=job, step=None, state=ModelState.RELEASED,
        )  # fmt: skip
        values = {n: encode(getattr(model, n)) for n in TunedModel.__dataclass_fields__}
        return values | self._owned(number, project)

    def _entry(self, number: int) -> dict[str, Any]:
        owned = self._owned(number, self._project())
        return {name: owned[name] for name in ("organization_id", "project_id", "order_key")} | {
            "id": self._ids.new("led_"), "kind": EntryKind.INFERENCE.value,
            "request_id": self._ids.new("req_"), "time": START + number * 300,
            "key_id": self.key_id, "base_id": self.base,
            "model": f"ft:{self.base}:local::{number % self._sizes.models:08d}",
            "amount_micro": 12, "amount_rest_pico": 500, "trained_tokens": 0,
            "prompt_tokens": 36, "cached_tokens": 14, "completion_tokens": 60,
            "outcome": "finished",
        }  # fmt: skip

    def _batch(self, number: int) -> dict[str, Any]:
        file, project = self._files[number]
        return self._owned(number, project) | {
            "id": self._ids.new("batch_"), "key_id": self.key_id, "status": "completed",
            "endpoint": "/v1/chat/completions", "input_file_id": file,
            "completion_window": "24h", "total": 10, "completed": 10, "failed": 0,
            "expires_at": START + 86_400, "fence": 1,
        }  # fmt: skip
