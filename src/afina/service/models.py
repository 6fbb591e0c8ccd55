"""Models by their public names: bases, tuned models and checkpoints."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from afina.domain.accounts import Caller
from afina.domain.encoders import ENCODER_ID
from afina.domain.ids import JOB, OUTBOX
from afina.domain.models import BaseModel, ModelState, TunedModel
from afina.errors import Forbidden, ModelNotFound
from afina.service import bases, card_facts, gate, run_folders
from afina.service.platform import Platform
from afina.store import aliases, jobs, models, outbox, references
from afina.store.aliases import AliasEntry
from afina.store.database import Tx
from afina.store.references import Holder

_BASE_OWNER: Final = "system"
_REMEDY: Final = (
    "GET /v1/models lists what answers; model_aliases in afina.toml lets another name mean one of "
    "them."
)
_REMEDY_OF_A_JOB: Final = "This is a job: its model's name is the job's fine_tuned_model."


@dataclass(frozen=True)
class ModelEntry:
    """A model as the list shows it; exactly one of `base` and `tuned` is set."""

    id: str
    created_at: int
    owned_by: str
    base: BaseModel | None = None
    tuned: TunedModel | None = None

    @property
    def base_id(self) -> str:
        """Its base, which may be itself."""
        return self.id if self.tuned is None else self.tuned.base_id

    @property
    def state(self) -> str | None:
        """Where a tuned model stands with the gate."""
        return None if self.tuned is None else self.tuned.state.value


class ListedModel(NamedTuple):
    """A model in a list of many."""

    id: str
    created_at: int
    owned_by: str
    base_id: str
    state: str | None = None
    """Where a tuned model stands with the gate."""
    base_missing: bool = False
    """Its base is not here, or not admitted: it cannot answer."""


@dataclass(frozen=True)
class ResolvedModel:
    """What answers for a name: `name` is what really runs (an alias is resolved)."""

    name: str
    base: BaseModel
    adapter: str | None = None
    """The sha256 of the manifest blob; None for a base model."""
    tuned: TunedModel | None = None

    @property
    def fingerprint(self) -> str:
        """Changes whenever the weights that answer change."""
        text = f"{self.base.sha256}:{self.adapter or ''}"
        return "fp_" + hashlib.sha256(text.encode()).hexdigest()[:10]


def list_models(platform: Platform, caller: Caller) -> list[ModelEntry]:
    """Admitted bases, then the project's tuned models and checkpoints, newest first."""
    with platform.database.read() as tx:
        tuned = models.list_models(tx, caller.project_id)
    found = [_base_entry(base) for base in bases.list_bases(platform)]
    return found + [_tuned_entry(platform, model) for model in tuned]


def list_names(platform: Platform, caller: Caller) -> list[ListedModel]:
    """The same, with no more than a list shows."""
    with platform.database.read() as tx:
        tuned = models.list_names(tx, caller.project_id)
    owner = platform.settings.organization
    listed = [
        ListedModel(base.id, base.created_at, _BASE_OWNER, base.id)
        for base in bases.list_bases(platform)
    ]
    here = {base.id for base in listed}
    return listed + [
        ListedModel(name, at, owner, base, state, base not in here)
        for name, at, base, state in tuned
    ]


def get_model(platform: Platform, caller: Caller, name: str) -> ModelEntry:
    """Raises ModelNotFound."""
    alias = None
    with platform.database.read() as tx:
        tuned = models.get_model(tx, name, caller.project_id)
        if tuned is None:
            alias = aliases.current_alias(tx, caller.project_id, name)
            if alias is not None and alias.target is not None:
                tuned = models.get_model(tx, alias.target, caller.project_id)
    if tuned is not None:
        return _tuned_entry(platform, tuned)
    base = bases.resolve_base(platform, name)
    if base is None:
        raise (None if alias is None else _means_nothing(alias)) or _no_model(name)
    return _base_entry(base)


def meant(tx: Tx, caller: Caller, name: str) -> str:
    """The tuned model that an alias means now; the name itself where it is no alias."""
    alias = aliases.current_alias(tx, caller.project_id, name)
    return name if alias is None or alias.target is None else alias.target


def resolve_model(platform: Platform, caller: Caller, name: str) -> ResolvedModel:
    """What answers a request for `name`. Raises ModelNotFound."""
    entry = get_model(platform, caller, name)
    _refuse_shut_down(platform, entry)
    if entry.base is not None:
        return ResolvedModel(entry.id, entry.base)
    tuned = entry.tuned
    if tuned is None or tuned.state is ModelState.HELD:
        raise _held(platform, name, entry)
    base = bases.get_base(platform, tuned.base_id)
    if base is None or not base.admitted:
        raise ModelNotFound(
            f"The model `{name}` cannot answer: its base model {tuned.base_id} is not here.",
            param="model",
            remedy="Pull it again with `afina models pull`.",
        )
    return ResolvedModel(tuned.name, base, tuned.manifest, tuned)


def _held(platform: Platform, name: str, entry: ModelEntry) -> ModelNotFound:
    assert entry.tuned is not None, "bases are not held"
    what = f"`{name}` is" if name == entry.id else f"`{entry.id}`, which `{name}` means, is"
    return ModelNotFound(
        f"The model {what} held back: {gate.reason_held(platform, entry.tuned)}.",
        param="model",
        code="model_held",
        remedy=f"`afina models card {entry.id}` shows all that was found; a key that may write "
        f"models lets it answer (`afina models release {entry.id}`) or has it measured again "
        f"(`afina models gate {entry.id}`).",
    )


def delete_model(platform: Platform, caller: Caller, name: str) -> None:
    """Deletes a tuned model and its bytes; its job stays. Raises ModelNotFound, and Forbidden for
    a base."""
    with platform.database.write() as tx:
        tuned = models.get_model(tx, name, caller.project_id)
        if tuned is None:
            raise _refuse_base(platform, name, aliases.current_alias(tx, caller.project_id, name))
        if tuned.project_id != caller.project_id:
            raise Forbidden(
                f"The model `{name}` belongs to another project, which lets this one use it.",
                param="model",
                code="insufficient_permissions",
            )
        models.delete_model_row(tx, name)
        held = references.drop_references(tx, Holder("model", name))
        if not models.manifest_in_use(tx, tuned.manifest):
            id_ = platform.ids.new(OUTBOX)
            payload = {"adapter": tuned.manifest}
            outbox.put_item(tx, id_, outbox.FORGET_ADAPTER, payload, platform.clock.now())
        job = None if tuned.job_id is None else jobs.get_job(tx, tuned.job_id)
        is_last = tuned.job_id is not None and not models.manifests_of_job(tx, tuned.job_id)
    if job is not None and job.status.is_terminal:
        run_folders.remove_checkpoints(platform, job.id)
    if is_last and tuned.job_id is not None:
        card_facts.forget_facts(platform, tuned.job_id)
    references.remove_blobs(platform.database, platform.blobs, held)


def shutdown_date(platform: Platform, entry: ModelEntry | ListedModel) -> date | None:
    """The day from which the model answers no more: its own, else its base's."""
    dates = platform.settings.shutdown_dates
    return dates.get(entry.id) or dates.get(entry.base_id) if dates else None


def base_missing(platform: Platform, entry: ModelEntry | ListedModel) -> bool:
    """Whether the model cannot answer because its base is not here, or not admitted."""
    if isinstance(entry, ListedModel):
        return entry.base_missing
    base = bases.get_base(platform, entry.base_id)
    return base is None or not base.admitted


def _refuse_shut_down(platform: Platform, entry: ModelEntry) -> None:
    day = shutdown_date(platform, entry)
    if day is not None and datetime.fromtimestamp(platform.now(), UTC).date() >= day:
        raise ModelNotFound(
            f"The model `{entry.id}` was shut down on {day.isoformat()}.",
            param="model",
            code="model_shut_down",
            remedy="Its owner can change the date under shutdown_dates in afina.toml.",
        )


def _base_entry(base: BaseModel) -> ModelEntry:
    return ModelEntry(base.id, base.created_at, _BASE_OWNER, base=base)


def _tuned_entry(platform: Platform, tuned: TunedModel) -> ModelEntry:
    owner = platform.settings.organization
    return ModelEntry(tuned.name, tuned.created_at, owner, tuned=tuned)


def _refuse_base(
    platform: Platform, name: str, alias: AliasEntry | None
) -> Forbidden | ModelNotFound:
    if bases.resolve_base(platform, name) is None:
        if alias is None or alias.target is None:
            return _no_model(name)
        return ModelNotFound(
            f"`{name}` is an alias of `{alias.target}` and no model of its own.",
            param="model",
            remedy=f"Delete that model by its name; `afina aliases remove {name}` takes the alias "
            "away.",
        )
    return Forbidden(
        f"The model `{name}` is a base model; only tuned models can be deleted here.",
        param="model",
        remedy="Remove its folder from the data directory's models while the server is down.",
    )


def _means_nothing(alias: AliasEntry) -> ModelNotFound | None:
    """Why an alias means no model; None for one that was taken away."""
    name = alias.name
    if alias.target is not None:
        return ModelNotFound(
            f"The alias `{name}` means `{alias.target}`, which is not here any more.",
            param="model",
            remedy=f"Let it mean another model (`afina aliases set {name} MODEL`) or what it meant "
            f"before (`afina aliases back {name}`).",
        )
    if alias.follows is None:
        return None
    return ModelNotFound(
        f"The alias `{name}` follows the suffix {alias.follows}, of which no model has been "
        "released yet.",
        param="model",
        remedy=f"Tune one, or let the alias mean a model: `afina aliases set {name} MODEL`.",
    )


def _no_model(name: str) -> ModelNotFound:
    if name == ENCODER_ID:
        return ModelNotFound(
            f"The model `{name}` makes vectors and does not answer.",
            param="model",
            remedy="Ask it with POST /v1/embeddings.",
        )
    return ModelNotFound(
        f"The model `{name[:300]}` does not exist or you do not have access to it.",
        param="model",
        remedy=_REMEDY_OF_A_JOB if name.startswith(JOB) else _REMEDY,
    )
