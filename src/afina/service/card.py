"""A model's card: where it comes from, what was found in its data, how it was tuned, what the gate
and the proof of parity say. One value; the API gives it as JSON and as a page.
"""

from __future__ import annotations

from typing import Any, Final

from afina import __version__
from afina.domain.accounts import Caller
from afina.domain.codec import encode
from afina.domain.events import JobEvent
from afina.domain.jobs import Job
from afina.domain.manifests import Manifest
from afina.domain.models import BaseModel, TunedModel
from afina.errors import InvalidRequest
from afina.service import bases, models
from afina.service.card_facts import facts_of
from afina.service.gate import BY_GATE, changes, gate_over
from afina.service.platform import Platform
from afina.store import events, files, jobs
from afina.store.gates import GateRow

MOST_POINTS: Final = 400
_KEPT: Final = ("train_loss", "valid_loss", "full_valid_loss")


def card_of(platform: Platform, caller: Caller, name: str) -> dict[str, Any]:
    """The card. Raises ModelNotFound, and InvalidRequest for a base model."""
    entry = models.get_model(platform, caller, name)
    tuned = entry.tuned
    if tuned is None:
        raise InvalidRequest(
            f"The model `{name}` is a base model; only tuned models have a card.", param="model"
        )
    job, said = _job(platform, tuned)
    base = bases.get_base(platform, tuned.base_id)
    row = gate_over(platform, tuned)
    return {
        "object": "afina.model_card",
        "model": tuned.name,
        "state": tuned.state.value,
        "created_at": tuned.created_at,
        "written_at": platform.now(),
        "written_by": f"afina {__version__}",
        "history": _history(platform, tuned),
        "base": _base(tuned, base),
        "data": _data(platform, tuned, job),
        "method": _method(platform, tuned, job),
        "curves": _curves(said),
        "gate": _unasked(job) if row is None else _gate(row),
        "parity": encode(tuned.parity),
    }


def _gate(row: GateRow) -> dict[str, Any]:
    return {
        "model": row.model,
        "policy": row.policy,
        "suite": row.suite,
        "status": row.status,
        "note": row.note,
        "report": row.report,
    }


def _unasked(job: Job | None) -> dict[str, Any] | None:
    """A gate that was asked for and is not there: the job has not ended, or the model is gone that
    it spoke of. None where none was asked for."""
    if job is None or job.extension.gate.policy == "off":
        return None
    wish = job.extension.gate
    status = "gone" if job.status.is_terminal else "waits"
    made = {"model": None, "policy": wish.policy, "suite": wish.suite, "status": status}
    return made | {"note": None, "report": None}


def _history(platform: Platform, tuned: TunedModel) -> list[dict[str, Any]]:
    """Who released it or held it back since it was made, and when: people, or the gate when it was
    asked again."""
    return [
        {
            "at": entry.time,
            "state": "held" if entry.type.endswith("held") else "released",
            "by": "gate" if entry.type in BY_GATE else "hand",
            "key": entry.key_id,
            "user": entry.user_id,
        }
        for entry in changes(platform, tuned)
    ]


def _job(platform: Platform, tuned: TunedModel) -> tuple[Job | None, list[JobEvent]]:
    if tuned.job_id is None:
        return None, []
    with platform.database.read() as tx:
        job = jobs.get_job(tx, tuned.job_id)
        return job, events.all_events(tx, tuned.job_id) if job is not None else []


def _base(tuned: TunedModel, base: BaseModel | None) -> dict[str, Any]:
    if base is None:
        return {"id": tuned.base_id, "here": False}
    return {
        "id": base.id,
        "here": True,
        "hub_id": base.hub_id,
        "licence": base.licence,
        "sha256": base.sha256,
        "parameters": base.parameters,
    }


def _data(platform: Platform, tuned: TunedModel, job: Job | None) -> list[dict[str, Any]]:
    """What is known of the files that the model was tuned on: hashes, counts, findings by rule."""
    if tuned.job_id is None:
        return []
    made = []
    for one in facts_of(platform, tuned.job_id) or _unknown(job):
        with platform.database.read() as tx:
            stored = None if one["file"] is None else files.get_file(tx, one["file"])
        made.append({"filename": None if stored is None else stored.filename, **one})
    return made


def _unknown(job: Job | None) -> list[dict[str, Any]]:
    """Files of which nothing is known but that the job names them."""
    named = [] if job is None else [("training_file", job.training_file)]
    if job is not None and job.validation_file is not None:
        named.append(("validation_file", job.validation_file))
    empty = dict.fromkeys(("sha256", "rows", "rows_used", "moderation", "redaction"))
    return [{"which": which, "file": file, **empty, "findings": {}} for which, file in named]


def _method(platform: Platform, tuned: TunedModel, job: Job | None) -> dict[str, Any]:
    manifest = Manifest.from_bytes(platform.blobs.read(tuned.manifest))
    return {
        "kind": manifest.kind,
        "manifest": tuned.manifest,
        "data_sha256": manifest.data_sha256,
        "template_sha256": manifest.template_sha256,
        "settings": dict(manifest.settings),
        "job": None if job is None else job.id,
        "method": None if job is None else job.method,
        "trained_tokens": None if job is None else job.trained_tokens,
        "afina": None if job is None else job.extension.shown(),
    }


def _curves(said: list[JobEvent]) -> list[dict[str, Any]]:
    steps = [event.data for event in said if event.type == "metrics"]
    every = max(1, -(-len(steps) // MOST_POINTS))
    kept = [
        data
        for index, data in enumerate(steps)
        if index % every == 0 or index == len(steps) - 1 or "full_valid_loss" in data
    ]
    return [
        {"step": data["step"]} | {name: data[name] for name in _KEPT if data.get(name) is not None}
        for data in kept
    ]
