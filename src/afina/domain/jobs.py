"""A fine-tuning job: its states, the moves between them, and what was asked for.

The states are those of the wire API. `stage` is finer and ours: where on the road a job is.
Only `TRANSITIONS` says which moves exist; the store carries them out by compare-and-set.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from afina.domain.integrations import Integration
from afina.domain.methods import Extension
from afina.domain.sayings import Said

Auto = Literal["auto"]


class JobStatus(enum.StrEnum):
    """The states of the wire API."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL: Final = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

TRANSITIONS: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.VALIDATING: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset(
        {JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def may_move(source: JobStatus, target: JobStatus) -> bool:
    """Whether a job may go from `source` to `target`."""
    return target in TRANSITIONS[source]


class Wish(enum.StrEnum):
    """What a user asked of a job that a worker holds; the worker obeys at its next step."""

    CANCEL = "cancel"
    PAUSE = "pause"


@dataclass(frozen=True)
class Hyperparameters:
    """As asked for: `auto` stays until the resolve stage puts a number in its place."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    beta: float | Auto | None = None
    """Of DPO alone; None elsewhere."""


@dataclass(frozen=True)
class JobError:
    """Why a job failed: `param` is `training_file`, `validation_file` or None."""

    code: str
    message: str
    param: str | None = None
    said: tuple[Said, ...] = ()
    """The same by name, for readers of other languages; empty where `code` says enough."""


@dataclass(frozen=True)
class Job:
    """A fine-tuning job as the store knows it. Times are Unix seconds."""

    id: str
    project_id: str
    status: JobStatus
    created_at: int
    model: str
    """The base's public id, after aliases and parents are resolved."""
    requested_model: str
    """What the request said, an alias perhaps."""
    training_file: str
    seed: int
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    method: str = "supervised"
    method_given: bool = False
    """Whether the request used `method`, so that the answer does too."""
    extension: Extension = field(default_factory=Extension)
    parent: str | None = None
    """The tuned model that the job continues from, by the name that the request said."""
    parent_manifest: str | None = None
    validation_file: str | None = None
    suffix: str | None = None
    metadata: Mapping[str, str] | None = None
    integrations: tuple[Integration, ...] = ()
    """Who else is told the job's metrics."""
    stage: str = "created"
    started_at: int | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    result_files: tuple[str, ...] = ()
    error: JobError | None = None
    wish: Wish | None = None
    fence: int = 0
    attempt: int = 0
    """The newest of its trainers: 1 for a job that went through without a break."""


@dataclass(frozen=True)
class JobCheckpoint:
    """A kept checkpoint of a job: a model that answers to `model`."""

    id: str
    job_id: str
    created_at: int
    model: str
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
