"""The wire's shapes of files, jobs, events, checkpoints and models.

Each shape is a typed dictionary, so that it costs nothing and still is in the OpenAPI document.
What OpenAI's objects do not have stands under the key `afina`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, NotRequired, TypeVar

import msgspec
from starlette.responses import Response
from typing_extensions import TypedDict

from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.events import JobEvent
from afina.domain.files import StoredFile
from afina.domain.jobs import Hyperparameters, Job, JobCheckpoint
from afina.domain.methods import Extension
from afina.domain.models import plain_suffix
from afina.domain.pages import Page
from afina.service.models import ListedModel, ModelEntry

_ENCODER = msgspec.json.Encoder(enc_hook=encode)


class FileObject(TypedDict):
    """A file."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: str | None


class ErrorObject(TypedDict):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class JobObject(TypedDict):
    """A fine-tuning job."""

    id: str
    object: str
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: ErrorObject | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    integrations: list[Any]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    afina: dict[str, Any]


class EventObject(TypedDict):
    """Something a job said."""

    id: str
    object: str
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]


class CheckpointObject(TypedDict):
    """A kept checkpoint of a job."""

    id: str
    object: str
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]


class ModelObject(TypedDict):
    """A model that answers here."""

    id: str
    object: str
    created: int
    owned_by: str
    shutdown_date: str | None
    afina: NotRequired[ModelExtension]


class ModelExtension(TypedDict):
    """What only afina says of a model."""

    state: NotRequired[str]
    """Of a tuned model: released, or held back by the gate or by a key."""
    resident: NotRequired[bool | None]
    """Whether it is in the engine's memory now; None if the engine does not answer."""
    base_missing: NotRequired[bool]
    """True where its base model is not here: it answers once that has been pulled again."""


class DeletedObject(TypedDict):
    """What was deleted."""

    id: str
    object: str
    deleted: bool


class ListObject(TypedDict):
    """A page of a list."""

    object: str
    data: list[Any]
    has_more: bool
    first_id: NotRequired[str | None]
    last_id: NotRequired[str | None]


class ModelList(TypedDict):
    """All models: the one list that has no pages."""

    object: str
    data: list[ModelObject]


class ErrorEnvelope(TypedDict):
    """What every refusal looks like."""

    error: dict[str, Any]


def answer(value: object, status: int = 200) -> Response:
    """`value` as a JSON answer."""
    return Response(_ENCODER.encode(value), status_code=status, media_type="application/json")


def file_object(file: StoredFile) -> FileObject:
    """A file as the wire shows it."""
    return FileObject(
        id=file.id,
        object="file",
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose.value,
        status=file.status.value,
        status_details=file.status_details,
    )


def job_object(job: Job, caller: Caller) -> JobObject:
    """A job as the wire shows it; the error of a healthy job is null."""
    error = job.error
    numbers = _hyperparameters(job.hyperparameters)
    return JobObject(
        id=job.id,
        object="fine_tuning.job",
        created_at=job.created_at,
        finished_at=job.finished_at,
        estimated_finish=job.estimated_finish,
        model=job.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=caller.organization_id,
        status=job.status.value,
        training_file=job.training_file,
        validation_file=job.validation_file,
        result_files=list(job.result_files),
        trained_tokens=job.trained_tokens,
        error=None
        if error is None
        else ErrorObject(code=error.code, message=error.message, param=error.param),
        hyperparameters=numbers,
        method={"type": job.method, job.method: {"hyperparameters": numbers}},
        seed=job.seed,
        integrations=[one.shown(job.id) for one in job.integrations],
        metadata=None if job.metadata is None else dict(job.metadata),
        user_provided_suffix=job.suffix,
        afina={
            "stage": job.stage,
            "requested_model": job.requested_model,
            "suffix": None if job.suffix is None else plain_suffix(job.suffix),
            "parent": job.parent,
            **_extension(job.extension),
            "started_at": job.started_at,
            "attempt": job.attempt,
            "wish": None if job.wish is None or job.status.is_terminal else job.wish.value,
        },
    )


@functools.lru_cache(1024)
def _extension(asked: Extension) -> Mapping[str, Any]:
    return MappingProxyType(asked.shown())


def _hyperparameters(asked: Hyperparameters) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "n_epochs": asked.n_epochs,
        "batch_size": asked.batch_size,
        "learning_rate_multiplier": asked.learning_rate_multiplier,
    }
    return numbers if asked.beta is None else {"beta": asked.beta, **numbers}


def event_object(event: JobEvent) -> EventObject:
    """An event as the wire shows it."""
    return EventObject(
        id=event.id,
        object="fine_tuning.job.event",
        created_at=event.created_at,
        level=event.level,
        message=event.message,
        type=event.type,
        data=dict(event.data),
    )


def checkpoint_object(checkpoint: JobCheckpoint) -> CheckpointObject:
    """A checkpoint as the wire shows it."""
    return CheckpointObject(
        id=checkpoint.id,
        object="fine_tuning.job.checkpoint",
        created_at=checkpoint.created_at,
        fine_tuned_model_checkpoint=checkpoint.model,
        fine_tuning_job_id=checkpoint.job_id,
        step_number=checkpoint.step,
        metrics={"step": checkpoint.step, **checkpoint.metrics},
    )


def model_object(
    entry: ModelEntry | ListedModel, shutdown: date | None = None, *, base_missing: bool = False
) -> ModelObject:
    """A model as the wire shows it."""
    shown = ModelObject(
        id=entry.id,
        object="model",
        created=entry.created_at,
        owned_by=entry.owned_by,
        shutdown_date=None if shutdown is None else shutdown.isoformat(),
    )
    if entry.state is not None:
        shown["afina"] = ModelExtension(state=entry.state)
        if base_missing:
            shown["afina"]["base_missing"] = True
    return shown


def deleted(id: str, object: str) -> DeletedObject:
    """The answer to a deletion."""
    return DeletedObject(id=id, object=object, deleted=True)


T = TypeVar("T")


def page(found: Page[T], shape: Callable[[T], Any], *, ids: bool) -> ListObject:
    """A page of a list; `ids`: with the ids of its ends, where the wire has them."""
    return listing([shape(item) for item in found.data], has_more=found.has_more, ids=ids)


def listing(data: Sequence[Mapping[str, Any]], *, has_more: bool, ids: bool) -> ListObject:
    """A list of objects in the wire's envelope."""
    shown = ListObject(object="list", data=list(data), has_more=has_more)
    if ids:
        shown["first_id"] = data[0]["id"] if data else None
        shown["last_id"] = data[-1]["id"] if data else None
    return shown
