"""Fine-tuning jobs: create, read, list, cancel, delete; their events and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from afina.domain.accounts import Caller
from afina.domain.events import JobEvent, Level
from afina.domain.files import StoredFile
from afina.domain.ids import EVENT, JOB
from afina.domain.jobs import Job, JobCheckpoint, JobStatus, Wish
from afina.domain.models import is_tuned_name
from afina.domain.pages import Page
from afina.domain.sayings import Said, say, text_of
from afina.errors import Conflict, InvalidRequest, ModelNotTunable, NotFound
from afina.service import bases, integrations, models, run_folders, usage, webhooks
from afina.service.files import check_limit, drop_file, find_file, remove_traces
from afina.service.job_request import JobRequest, check_metadata, check_request
from afina.service.once import Idempotency, answered_before, keep_answer, slot_of
from afina.service.platform import Platform
from afina.service.room import shortage
from afina.service.tuning import find_parent, hold_parent, settle
from afina.store import checkpoints, events, files, holds, jobs, references
from afina.store.database import Tx
from afina.store.references import Holder

__all__ = [
    "Idempotency",
    "JobRequest",
    "cancel_job",
    "create_job",
    "delete_job",
    "get_job",
    "list_checkpoints",
    "list_events",
    "list_jobs",
    "pause_job",
    "resume_job",
]
MAX_LIST: Final = 1000
_OVER: Final = {
    JobStatus.SUCCEEDED: "has succeeded already",
    JobStatus.FAILED: "has failed already",
    JobStatus.CANCELLED: "has been cancelled already",
}


_TRAINED: Final = frozenset({"parity", "gate"})
"""Stages in which there is no next step to stop at."""
_INSTEAD_OF_RESUMING: Final = {
    JobStatus.SUCCEEDED: "To train its model further, create a job with the model's name.",
    JobStatus.FAILED: "Create a job again, from the base or from a checkpoint of this one.",
    JobStatus.CANCELLED: "Create a job again, from the base or from a checkpoint of this one.",
}


def create_job(
    platform: Platform,
    caller: Caller,
    request: JobRequest,
    idempotency: Idempotency | None = None,
) -> Job:
    """Creates a job with its first two events. Raises InvalidRequest, ModelNotTunable, NotFound."""
    check_request(request)
    integrations.check_integrations(platform.settings, request.integrations)
    full = shortage(platform)
    slot = None if idempotency is None else slot_of(caller, idempotency)
    with platform.database.write() as tx:
        if slot is not None and idempotency is not None:
            known = answered_before(tx, slot, idempotency, platform.now())
            if known is not None:
                return known
        if full is not None:
            raise full
        job = _new_job(platform, tx, caller, request)
        jobs.insert_job(tx, job, caller, platform.clock.now())
        integrations.promise(platform, tx, job)
        events.add_events(tx, job.id, _first_events(platform, job))
        if slot is not None and idempotency is not None:
            keep_answer(tx, slot, idempotency, job)
    return job


def get_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Raises NotFound."""
    with platform.database.read() as tx:
        return _find(tx, caller, job_id)


def list_jobs(
    platform: Platform,
    caller: Caller,
    after: str | None = None,
    limit: int = 20,
    metadata: Mapping[str, str] | None = None,
) -> Page[Job]:
    """Newest first. `metadata`: pairs that a job must have; an empty mapping: only jobs without
    metadata; None: all."""
    check_limit(limit, MAX_LIST)
    check_metadata(metadata)
    with platform.database.read() as tx:
        return jobs.list_jobs(tx, caller.project_id, after, limit, metadata)


def cancel_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Cancels at once, or leaves the wish where a worker holds the job. Raises NotFound, and
    InvalidRequest for a job that is over."""
    with platform.database.write() as tx:
        job = _find(tx, caller, job_id)
        if job.status.is_terminal:
            raise InvalidRequest(
                f"The job {job_id} {_OVER[job.status]} and cannot be cancelled.",
                code="invalid_value",
            )
        cancelled = jobs.cancel_unheld(tx, job_id, platform.clock.now())
        if cancelled is None:
            if job.wish is not Wish.CANCEL:
                events.add_events(tx, job_id, [event(platform, job_id, say("cancel_wished"))])
            return jobs.wish_for(tx, job_id, Wish.CANCEL)
        events.add_events(tx, job_id, [event(platform, job_id, say("cancelled"))])
        if cancelled.trained_tokens:  # it was paused: the work done is billed
            usage.record_training(platform, tx, cancelled, job.model, cancelled.trained_tokens)
        held = references.drop_references(tx, Holder("job", job_id))
        webhooks.emit(platform, tx, job.project_id, "fine_tuning.job.cancelled", job_id)
    references.remove_blobs(platform.database, platform.blobs, held)
    return cancelled


def pause_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Pauses at once, or leaves the wish where a worker holds the job: it is obeyed at the next
    step, or as soon as the files are validated. Raises NotFound, and InvalidRequest for a job that
    is over, trained, paused, or about to be cancelled."""
    with platform.database.write() as tx:
        job = _find(tx, caller, job_id)
        reason = _OVER.get(job.status)
        if job.status is JobStatus.PAUSED:
            reason = "is paused already"
        elif job.wish is Wish.CANCEL:
            reason = "is being cancelled"
        elif job.wish is None and job.stage in _TRAINED:
            reason = "has been trained and is about to be published"
        if reason is not None:
            raise InvalidRequest(
                f"The job {job_id} {reason} and cannot be paused.", code="invalid_value"
            )
        paused = jobs.pause_unheld(tx, job_id, platform.clock.now())
        if paused is not None:
            events.add_events(tx, job_id, [event(platform, job_id, say("paused"))])
            return paused
        if job.wish is not Wish.PAUSE:
            events.add_events(tx, job_id, [event(platform, job_id, say("pause_wished"))])
        return jobs.wish_for(tx, job_id, Wish.PAUSE)


def resume_job(platform: Platform, caller: Caller, job_id: str) -> Job:
    """Queues a paused job again; it goes on from where it stood. Raises NotFound, InvalidRequest
    for a job that is not paused, and ModelNotTunable where its base is gone."""
    with platform.database.write() as tx:
        job = _find(tx, caller, job_id)
        if job.status is JobStatus.PAUSED:
            _check_base_of_paused(platform, job)
        queued = jobs.requeue_paused(tx, job_id)
        if queued is None:
            raise InvalidRequest(
                f"The job {job_id} {_why_not_resumed(job)}: only a paused job can be resumed.",
                code="invalid_value",
                remedy=_INSTEAD_OF_RESUMING.get(job.status),
            )
        holds.to_the_end(tx, job_id, platform.clock.now())  # others were promised since
        events.add_events(tx, job_id, [event(platform, job_id, say("resumed"))])
    return queued


def _check_base_of_paused(platform: Platform, job: Job) -> None:
    base = bases.get_base(platform, job.model)
    if base is None or not base.admitted:
        raise ModelNotTunable(
            f"The job {job.id} cannot go on: its base model {job.model} is not on this machine.",
            remedy="Pull it again with `afina models pull`, then resume; the job stays paused.",
        )


def _why_not_resumed(job: Job) -> str:
    if job.status.is_terminal:
        return _OVER[job.status]
    if job.wish is Wish.PAUSE:
        return "is about to pause, and is not paused yet"
    return f"is not paused, it is {job.status.value}"


def delete_job(platform: Platform, caller: Caller, job_id: str) -> None:
    """Deletes a job that is over: its rows, run directory, checkpoints and results; the models
    that came out and the ledger stay. Raises NotFound, Conflict."""
    with platform.database.write() as tx:
        job = _find(tx, caller, job_id)
        if not job.status.is_terminal:
            raise Conflict(
                f"The job {job_id} is {job.status.value}.",
                remedy="Cancel it, or wait until it is over, then delete it.",
            )
        held = references.drop_references(tx, Holder("job", job_id))
        results = [f for f in (files.get_file(tx, id_) for id_ in job.result_files) if f]
        for file in results:
            drop_file(tx, file)
        jobs.delete_job_row(tx, job_id)
    run_folders.remove_run(platform, job_id)
    for file in results:
        remove_traces(platform, file, ())
    references.remove_blobs(platform.database, platform.blobs, held)


def list_events(
    platform: Platform, caller: Caller, job_id: str, after: str | None = None, limit: int = 20
) -> Page[JobEvent]:
    """Newest first. Raises NotFound."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        _find(tx, caller, job_id)
        return events.list_events(tx, job_id, after, limit)


def list_checkpoints(
    platform: Platform, caller: Caller, job_id: str, after: str | None = None, limit: int = 10
) -> Page[JobCheckpoint]:
    """Highest step first. Raises NotFound."""
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        _find(tx, caller, job_id)
        return checkpoints.list_checkpoints(tx, job_id, after, limit)


def event(platform: Platform, job_id: str, *said: Said, level: Level = "info") -> JobEvent:
    """An event of the platform's own, to be added in the transaction that causes it."""
    made = JobEvent(platform.ids.new(EVENT), job_id, platform.now(), level, text_of(said))
    return replace(made, said=said)


def _find(tx: Tx, caller: Caller, job_id: str) -> Job:
    job = jobs.get_job(tx, job_id, caller.project_id)
    if job is None:
        raise NotFound(
            f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found"
        )
    return job


def _new_job(platform: Platform, tx: Tx, caller: Caller, request: JobRequest) -> Job:
    parent = None
    name = models.meant(tx, caller, request.model)
    if is_tuned_name(name):
        parent = find_parent(platform, caller, name)
        base = bases.tunable_base(platform, parent.model.base_id)
    else:
        base = bases.tunable_base(platform, request.model)
    extension = settle(
        platform.settings,
        base,
        request.extension,
        parent,
        has_validation=request.validation_file is not None,
        kind_given=request.kind_given,
    )
    find_rows(platform, tx, caller, request.training_file, "training_file")
    if request.validation_file is not None:
        find_rows(platform, tx, caller, request.validation_file, "validation_file")
    job_id = platform.ids.new(JOB)
    if parent is not None:
        hold_parent(tx, parent, job_id)
    return Job(
        id=job_id,
        project_id=caller.project_id,
        status=JobStatus.VALIDATING,
        created_at=platform.now(),
        model=base.id,
        requested_model=request.model,
        training_file=request.training_file,
        seed=platform.ids.seed() if request.seed is None else request.seed,
        hyperparameters=request.hyperparameters,
        method=request.method,
        method_given=request.method_given,
        validation_file=request.validation_file,
        suffix=request.suffix,
        metadata=None if request.metadata is None else dict(request.metadata),
        integrations=request.integrations,
        extension=extension,
        parent=None if parent is None else parent.model.name,
        parent_manifest=None if parent is None else parent.model.manifest,
    )


def find_rows(platform: Platform, tx: Tx, caller: Caller, file_id: str, param: str) -> StoredFile:
    """The file of rows that a request names in `param`. Raises NotFound, InvalidRequest."""
    try:
        file = find_file(platform, tx, caller, file_id)
    except NotFound as error:
        raise NotFound(error.message, param=param) from None
    if file.purpose.value != "fine-tune":
        raise InvalidRequest(
            f"The file {file_id} has the purpose {file.purpose.value!r}, not 'fine-tune'.",
            param=param,
            code="invalid_value",
            remedy="Upload it again with the purpose fine-tune.",
        )
    return file


def _first_events(platform: Platform, job: Job) -> list[JobEvent]:
    validating = say("validating", id=job.training_file)
    if job.validation_file is not None:
        validating = say("validating_two", id=job.training_file, other=job.validation_file)
    return [event(platform, job.id, said) for said in (say("created", id=job.id), validating)]
