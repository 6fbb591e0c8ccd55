"""The end of a job: tunes become blobs, then models, in one transaction; or the job ends without.

`store_tune` puts a checkpoint's files and manifest where the engine can read them (held by the
job, so that no sweep takes them), before anyone can see a model. `publish_models` makes models,
checkpoints, the ledger's entry, the results file, events and the job's success visible together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afina.domain.jobs import Job, JobError
from afina.service.platform import Platform


@dataclass(frozen=True)
class TuneFacts:
    """What a manifest says besides its files."""

    base_sha256: str
    template_sha256: str
    data_sha256: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedTune:
    """A stored tune: its step, the manifest's hash and the checkpoint's metrics."""

    step: int
    manifest: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Publication:
    """What a run brought. `tunes` are oldest first; the last one is the tuned model."""

    tunes: tuple[PublishedTune, ...]
    trained_tokens: int
    template_sha256: str
    results_csv: bytes | None = None
    parity: Mapping[str, Any] | None = None


def store_tune(platform: Platform, job: Job, facts: TuneFacts, files: Mapping[str, Path]) -> str:
    """Stores a tune's files (by their published names) and manifest under the job's fence;
    returns the manifest's sha256. Doing it again changes nothing."""
    raise NotImplementedError


def publish_models(platform: Platform, job: Job, publication: Publication) -> Job:
    """Ends the job as succeeded with all that came out, in one transaction. `job` carries the
    fence of the worker. Raises StaleFence, IllegalTransition."""
    raise NotImplementedError


def fail_job(platform: Platform, job: Job, error: JobError) -> Job:
    """Ends the job as failed, with its error event. Nothing is billed."""
    raise NotImplementedError


def end_cancelled(platform: Platform, job: Job, trained_tokens: int = 0) -> Job:
    """Ends the job as cancelled, as its user wished; the work done is billed."""
    raise NotImplementedError
