"""Fine-tuning jobs: create, read, list, cancel, delete; their events and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from afina.domain.accounts import Caller
from afina.domain.events import JobEvent
from afina.domain.jobs import Hyperparameters, Job, JobCheckpoint
from afina.domain.pages import Page
from afina.service.platform import Platform


@dataclass(frozen=True)
class JobRequest:
    """What a client asked for; the shapes of the values are checked by the api already, their
    ranges and meaning here."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    method: str = "supervised"
    method_given: bool = False
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Idempotency:
    """How a repeated create is recognised: by the client's key, else, if the client says that it
    retries, by the body within ten minutes."""

    body_sha256: str
    key: str | None = None
    retried: bool = False
    route: str = "POST /v1/fine_tuning/jobs"


def create_job(
    platform: Platform,
    caller: Caller,
    request: JobRequest,
    idempotency: Idempotency | None = None,
) -> Job:
    """Creates a job with its first two events. Raises InvalidRequest, ModelNotTunable, NotFound."""
    raise NotImplementedError


def get_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Raises NotFound."""
    raise NotImplementedError


def list_jobs(
    platform: Platform,
    caller: Caller,
    after: str | None = None,
    limit: int = 20,
    metadata: Mapping[str, str] | None = None,
) -> Page[Job]:
    """Newest first. `metadata`: pairs that a job must have; an empty mapping: only jobs without
    metadata; None: all."""
    raise NotImplementedError


def cancel_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Cancels at once, or leaves the wish where a worker holds the job. Raises NotFound, and
    InvalidRequest for a job that is over."""
    raise NotImplementedError


def delete_job(platform: Platform, caller: Caller, job_id: str) -> None:
    """Deletes a job that is over: its rows, run directory, checkpoints and results; the models
    that came out and the ledger stay. Raises NotFound, Conflict."""
    raise NotImplementedError


def list_events(
    platform: Platform, caller: Caller, job_id: str, after: str | None = None, limit: int = 20
) -> Page[JobEvent]:
    """Newest first. Raises NotFound."""
    raise NotImplementedError


def list_checkpoints(
    platform: Platform, caller: Caller, job_id: str, after: str | None = None, limit: int = 10
) -> Page[JobCheckpoint]:
    """Highest step first. Raises NotFound."""
    raise NotImplementedError
