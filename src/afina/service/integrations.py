"""Integrations of jobs: what must be set for one, and what its tracker is told.

A tracker is told names, settings and numbers. No row of training data goes there, and no key is
kept with a job: keys and addresses are settings.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Any, Final

from afina.domain import ids
from afina.domain.codec import encode
from afina.domain.integrations import (
    EXPERIMENT,
    PROJECT,
    Integration,
    MetricsRow,
    Mlflow,
    RunNews,
    RunState,
    Wandb,
    default_tags,
)
from afina.domain.jobs import Job, JobStatus
from afina.errors import InvalidRequest
from afina.service.platform import Platform
from afina.settings import Settings
from afina.store import events, outbox
from afina.store.database import Tx

_STATES: Final[dict[JobStatus, RunState]] = {
    JobStatus.SUCCEEDED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "killed",
}


def check_integrations(settings: Settings, asked: Sequence[Integration]) -> None:
    """Raises InvalidRequest for an integration that this server is not set up for, and for two
    that mean the same run."""
    seen = set()
    for number, one in enumerate(asked):
        where = f"integrations[{number}]"
        place = (one.type, one.entity, one.project) if isinstance(one, Wandb) else (
            one.type, None, one.experiment
        )  # fmt: skip
        if place in seen:
            raise InvalidRequest(
                f"'{where}' means the same run as an earlier one.",
                param=where,
                code="invalid_value",
            )
        seen.add(place)
        name, form = ("wandb.project", PROJECT) if isinstance(one, Wandb) else (
            "mlflow.experiment", EXPERIMENT
        )  # fmt: skip
        if re.fullmatch(form, place[2]) is None:
            raise InvalidRequest(
                f"'{where}.{name}' is too long, or has characters that are not allowed.",
                param=f"{where}.{name}",
                code="invalid_value",
            )
        if isinstance(one, Wandb):
            _check_wandb(settings, where)
        else:
            _check_mlflow(settings, where)


def _check_mlflow(settings: Settings, where: str) -> None:
    if settings.integrations.mlflow.tracking_uri is None:
        raise _not_set_up(where, "MLflow", "integrations.mlflow.tracking_uri in DATA/afina.toml")
    settings.check_online(f"'{where}' cannot be told", where)


def offered(settings: Settings) -> list[str]:
    """The types that this server is set up for."""
    found: list[str] = []
    for one in (Wandb("p"), Mlflow("e")):
        try:
            check_integrations(settings, [one])
        except InvalidRequest:
            continue
        found.append(one.type)
    return found


def _check_wandb(settings: Settings, where: str) -> None:
    given = settings.integrations.wandb
    if given.mode == "online" and given.api_key is None:
        raise _not_set_up(
            where,
            "Weights & Biases",
            'integrations.wandb.api_key in DATA/afina.toml, or mode = "offline"',
        )
    if given.mode == "online":
        settings.check_online(f"'{where}' cannot be told", where)
    if importlib.util.find_spec("wandb") is None:
        raise InvalidRequest(
            f"'{where}' needs the client of Weights & Biases, which is not installed here.",
            param=where,
            code="integration_unavailable",
            remedy="Install it on the server with `pip install afina[wandb]`.",
        )


def _not_set_up(where: str, name: str, setting: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{where}' asks for {name}, which is not set up on this server.",
        param=where,
        code="integration_not_configured",
        remedy=f"Set {setting}, or leave the integration out.",
    )


def promise(platform: Platform, tx: Tx, job: Job) -> None:
    """Puts the telling of each tracker into the outbox, in the transaction that makes the job."""
    for number in range(len(job.integrations)):
        item, payload = platform.ids.new(ids.OUTBOX), {"job": job.id, "number": str(number)}
        outbox.put_item(tx, item, outbox.TELL_TRACKER, payload, platform.clock.now())


def news_of(
    tx: Tx, job: Job, one: Integration, after: int, limit: int | None
) -> tuple[int, RunNews]:
    """What is new of a job for a tracker since the place `after` in its events, and the place to
    go on from."""
    found = events.metrics_after(tx, job.id, after, limit)
    rows = tuple(_row(event.created_at, event.data) for _, event in found)
    news = RunNews(
        job_id=job.id,
        name=one.name or job.id,
        started_at=job.started_at or job.created_at,
        config=_config(job),
        tags=default_tags(job.id, job.model),
        state=_STATES.get(job.status, "running"),
        ended_at=job.finished_at,
        metrics=rows,
        outcome=_outcome(job) if job.status.is_terminal else {},
    )
    return (found[-1][0] if found else after), news


def _row(time: int, data: Any) -> MetricsRow:
    values = {
        name: float(value)
        for name, value in data.items()
        if name not in ("step", "total_steps") and isinstance(value, int | float)
    }
    return MetricsRow(int(data["step"]), time, values)


def _config(job: Job) -> dict[str, Any]:
    numbers = {name: v for name, v in encode(job.hyperparameters).items() if v is not None}
    return {
        "model": job.requested_model,
        "base_model": job.model,
        "method": job.method,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "seed": job.seed,
        "suffix": job.suffix,
        **numbers,
    }


def _outcome(job: Job) -> dict[str, str | int]:
    found = {
        "fine_tuned_model": job.fine_tuned_model,
        "trained_tokens": job.trained_tokens,
        "error_code": None if job.error is None else job.error.code,
    }
    return {name: value for name, value in found.items() if value is not None}
