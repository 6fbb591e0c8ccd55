"""What of another account's jobs can be done here, and how: pure functions, no network.

A plan has one line a job: what will be asked for here, or why it is left out. Epochs, beta, seed,
suffix, metadata and the validation file come along. Batch size and learning rate were chosen for
another model; they become `auto` unless `same_numbers` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from afina.domain.models import plain_suffix

MARK: Final = "moved_from"
"""The key of metadata that says which job of the other account a job here comes from."""
_MAX_PAIRS: Final = 16
_METHODS: Final = ("supervised", "dpo")
_NAME: Final = re.compile(r"ft:(?P<base>[^:]+):(?P<org>[^:]*):(?P<suffix>[^:]*):(?P<id>[^:]+)")


@dataclass(frozen=True)
class PlannedJob:
    """A job of the other account and what becomes of it."""

    source: str
    source_model: str
    tuned: str | None
    created_at: int
    model: str | None = None
    """The base here, or the `ft:` name there that it goes on from."""
    parent: str | None = None
    """The job there whose tuned model it goes on from."""
    training_file: str | None = None
    validation_file: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    """The request, without model and files."""
    notes: tuple[str, ...] = ()
    left_out: str | None = None
    """Why nothing is done for it."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for."""

    only: tuple[str, ...] = ()
    same_numbers: bool = False


def bases_of(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The base models that the account's jobs were made with, sorted."""
    return sorted({str(job.get("model")) for job in jobs if not _is_tune(job.get("model"))})


def plan_jobs(
    jobs: Sequence[Mapping[str, Any]], table: Mapping[str, str], wishes: Wishes
) -> list[PlannedJob]:
    """One line a job, oldest first."""
    by_model = {str(j["fine_tuned_model"]): str(j["id"]) for j in jobs if j.get("fine_tuned_model")}
    return [_planned(job, table, by_model, wishes) for job in jobs]


def _planned(
    job: Mapping[str, Any],
    table: Mapping[str, str],
    by_model: Mapping[str, str],
    wishes: Wishes,
) -> PlannedJob:
    body, notes = _body(job, wishes)
    model = str(job.get("model"))
    source = str(job["id"])
    parent = _parent(model, by_model)
    base = model if _is_tune(model) else table.get(model, "")
    return PlannedJob(
        source=source,
        source_model=model,
        tuned=job.get("fine_tuned_model"),
        created_at=int(job.get("created_at") or 0),
        model=base or None,
        parent=parent,
        training_file=job.get("training_file"),
        validation_file=job.get("validation_file"),
        body=body,
        notes=tuple(notes),
        left_out=_reason(job, wishes, base, parent),
    )


def _reason(job: Mapping[str, Any], wishes: Wishes, base: str, parent: str | None) -> str | None:
    status, method, model = job.get("status"), _method(job), str(job.get("model"))
    if wishes.only and job["id"] not in wishes.only:
        return "not asked for"
    if status != "succeeded" and not wishes.only:
        return f"it {'has ' if status == 'failed' else 'is '}{status} there"
    if method not in _METHODS:
        return f"the method {method} is not offered here"
    if not job.get("training_file"):
        return "it names no training file"
    if _is_tune(model) and parent is None:
        return f"it goes on from {model}, whose job is not in this account"
    if not base:
        return f"no base here stands for {model}: write one into bases.toml"
    return None


def _body(job: Mapping[str, Any], wishes: Wishes) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    method = _method(job)
    numbers = _numbers(job, method)
    kept: dict[str, Any] = {name: numbers[name] for name in ("n_epochs", "beta") if name in numbers}
    others = {
        name: numbers[name]
        for name in ("batch_size", "learning_rate_multiplier")
        if numbers.get(name) not in (None, "auto")
    }
    if wishes.same_numbers:
        kept |= others
    elif others:
        told = ", ".join(f"{name} {value}" for name, value in sorted(others.items()))
        notes.append(f"auto here instead of {told}")
    body: dict[str, Any] = {"method": {"type": method, method: {"hyperparameters": kept}}}
    if job.get("seed") is not None:
        body["seed"] = job["seed"]
    suffix, note = _suffix(job)
    if suffix:
        body["suffix"] = suffix
    notes += [note] if note else []
    metadata = dict(job.get("metadata") or {})
    if len(metadata) < _MAX_PAIRS:
        metadata[MARK] = str(job["id"])
    else:
        notes.append("its metadata is full: it is not marked as moved")
    body["metadata"] = metadata
    for one in job.get("integrations") or []:
        notes.append(f"its integration {one.get('type')} is not taken along")
    return body, notes


def _method(job: Mapping[str, Any]) -> str:
    return str((job.get("method") or {}).get("type") or "supervised")


def _numbers(job: Mapping[str, Any], method: str) -> dict[str, Any]:
    said = ((job.get("method") or {}).get(method) or {}).get("hyperparameters")
    found: dict[str, Any] = {**(job.get("hyperparameters") or {}), **(said or {})}
    return {name: value for name, value in found.items() if value is not None}


def _suffix(job: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The suffix, and a note where names show another one."""
    given = job.get("user_provided_suffix")
    if given is None:
        named = _NAME.match(str(job.get("fine_tuned_model") or ""))
        given = named["suffix"] if named else None
    if not given:
        return None, None
    plain = plain_suffix(str(given))
    note = None if plain == given else f"its suffix {given!r} is {plain!r} here"
    return (str(given) if plain else None), note


def _parent(model: str, by_model: Mapping[str, str]) -> str | None:
    """The job that made the tune; a checkpoint's name ends in its step and has an id of its own."""
    return by_model.get(model) if _is_tune(model) else None


def _is_tune(model: object) -> bool:
    return str(model).startswith("ft:")
