"""Tune: the form of a job, with what it will take beside it, before the button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from anyio import to_thread
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from afina.data.kinds import KINDS_OF_METHOD
from afina.domain.integrations import Integration, Mlflow, Wandb
from afina.domain.jobs import Auto, Hyperparameters
from afina.domain.manifests import SERVED
from afina.domain.methods import (
    DEFAULT_BETA,
    DEFAULT_RANK,
    MAX_RANK,
    EarlyStopping,
    Extension,
    GatePolicy,
    GateWish,
    Tuning,
)
from afina.errors import AfinaError, InvalidRequest
from afina.service import bases, files, jobs, models
from afina.service.estimates import estimate_job
from afina.service.files import FileQuery
from afina.service.integrations import offered
from afina.service.job_request import METHODS, JobRequest, check_request
from afina.service.tuning import TUNE_KINDS
from afina.web.pages.tune_faults import MOST_LAYERS, MOST_PATIENCE, fault_of
from afina.web.render import page
from afina.web.visit import Visit, form_of

_NUMBERS: Final = ("n_epochs", "batch_size", "learning_rate_multiplier")
_LISTED: Final = 200
_ASKED: Final = ("file", "model", "method", "n_epochs")
_PAIRS: Final = 4


def show(visit: Visit) -> Response:
    """The form, filled in from the query: a file, a model, or a job to do again."""
    asked = visit.request.query_params
    values: dict[str, str] = {name: asked[name] for name in _ASKED if name in asked}
    if "job" in asked:
        values |= _like(visit, asked["job"])
    return page(visit, "tune.html", _shown(visit, values))


async def estimate(visit: Visit) -> Response:
    """What the form as it stands would take; the errors of the form, where it has any."""
    form = await form_of(visit)
    return await to_thread.run_sync(_estimate, visit, form)


async def create(visit: Visit) -> Response:
    """Creates the job and goes to its page; the form again, with the reason, where that fails."""
    form = await form_of(visit)
    try:
        request = _request(form)
        job = await to_thread.run_sync(jobs.create_job, visit.platform, visit.caller, request)
    except AfinaError as error:
        values = {name: str(value) for name, value in form.items()}
        shown = await to_thread.run_sync(_shown, visit, values)
        return page(
            visit, "tune.html", shown | {"wrong": fault_of(visit.texts, error)}, error.status
        )
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _estimate(visit: Visit, form: FormData) -> Response:
    values = {name: str(value) for name, value in form.items()}
    found, wrong, other = None, None, None
    if values.get("file") and values.get("model"):
        try:
            request = _request(form)
            check_request(request)
            found = estimate_job(visit.platform, visit.caller, request)
            if found.kind not in KINDS_OF_METHOD[request.method]:
                other = next((m for m in METHODS if found.kind in KINDS_OF_METHOD[m]), "")
        except AfinaError as refused:
            wrong = fault_of(visit.texts, refused)
    return page(
        visit,
        "parts/estimate.html",
        {"found": found, "wrong": wrong, "other": other, "file": values.get("file")},
    )


def _shown(visit: Visit, values: dict[str, str]) -> dict[str, Any]:
    platform, caller = visit.platform, visit.caller
    query = FileQuery(purpose="fine-tune", limit=_LISTED)
    kept = files.list_files(platform, caller, query).data
    tuned = [entry.id for entry in models.list_models(platform, caller) if entry.tuned]
    here = [base.id for base in bases.list_bases(platform)]
    if kept and "file" not in values:
        values = values | {"file": kept[0].id}
    if here and "model" not in values:
        values = values | {"model": here[0]}
    return {
        "files": kept,
        "bases": here,
        "tuned": tuned,
        "methods": METHODS,
        "kinds": [kind for kind, served in TUNE_KINDS.items() if served in SERVED],
        "gates": get_args(GatePolicy),
        "rank": DEFAULT_RANK,
        "beta": DEFAULT_BETA,
        "pairs": _PAIRS,
        "trackers": offered(platform.settings),
        "values": values,
        "wrong": None,
    }


def _like(visit: Visit, job_id: str) -> dict[str, str]:
    """The form's fields as a job had them."""
    job = jobs.get_job(visit.platform, visit.caller, job_id)
    values = {
        "file": job.training_file,
        "validation": job.validation_file or "",
        "model": job.requested_model,
        "suffix": job.suffix or "",
        "seed": str(job.seed),
        "method": job.method,
        "kind": job.extension.tuning.kind,
        "rank": str(job.extension.tuning.rank or ""),
        "gate": job.extension.gate.policy,
        "layers": str(job.extension.tuning.layers or ""),
        "norm_and_head": "1" if job.extension.tuning.norm_and_head else "",
        "best_checkpoint": "1" if job.extension.best_checkpoint else "",
    }
    if job.extension.early_stopping is not None:
        values["patience"] = str(job.extension.early_stopping.patience)
    if job.hyperparameters.beta is not None:
        values["beta"] = str(job.hyperparameters.beta)
    for name in _NUMBERS:
        values[name] = str(getattr(job.hyperparameters, name))
    for one in job.integrations:
        values[one.type] = one.project if isinstance(one, Wandb) else one.experiment
    for place, (key, value) in enumerate((job.metadata or {}).items()):
        values |= {f"key{place}": key, f"value{place}": value}
    return values


def _request(form: FormData) -> JobRequest:
    def text(name: str) -> str:
        return str(form.get(name) or "").strip()

    if not text("file"):
        raise InvalidRequest("A job needs a training file.", param="training_file")
    if not text("model"):
        raise InvalidRequest("A job needs a base model.", param="model")
    pairs = {text(f"key{i}"): text(f"value{i}") for i in range(_PAIRS) if text(f"key{i}")}
    return JobRequest(
        model=text("model"),
        training_file=text("file"),
        validation_file=text("validation") or None,
        suffix=text("suffix") or None,
        seed=_number(text("seed"), "seed"),
        hyperparameters=_hyperparameters(form),
        method=text("method") or "supervised",
        method_given=True,
        metadata=pairs or None,
        integrations=_integrations(text),
        extension=_extension(text),
        kind_given=bool(text("kind")),
    )


def _integrations(text: Callable[[str], str]) -> tuple[Integration, ...]:
    found: list[Integration] = []
    if text("wandb"):
        found.append(Wandb(text("wandb")))
    if text("mlflow"):
        found.append(Mlflow(text("mlflow")))
    return tuple(found)


def _extension(text: Callable[[str], str]) -> Extension:
    kind, gate = text("kind") or "lora", text("gate") or "report"
    if kind not in TUNE_KINDS:
        raise InvalidRequest("There is no such kind of tuning.", param="afina.tuning.kind")
    if gate not in get_args(GatePolicy):
        raise InvalidRequest("There is no such policy.", param="afina.gate.policy")
    # What the form hides for this kind is not part of the wish.
    if kind in ("lora", "dora"):
        rank = _within(text("rank"), "afina.tuning.rank", MAX_RANK)
        tuning = Tuning(kind, rank=rank)  # type: ignore[arg-type]
    elif kind == "last_layers":
        layers = _within(text("layers"), "afina.tuning.layers", MOST_LAYERS)
        tuning = Tuning("last_layers", layers=layers, norm_and_head=bool(text("norm_and_head")))
    else:
        tuning = Tuning("full")
    patience = _within(text("patience"), "afina.early_stopping.patience", MOST_PATIENCE)
    return Extension(
        tuning=tuning,
        early_stopping=None if patience is None else EarlyStopping(patience=patience),
        best_checkpoint=bool(text("best_checkpoint")),
        gate=GateWish(policy=gate),  # type: ignore[arg-type]
    )


def _hyperparameters(form: FormData) -> Hyperparameters:
    given: dict[str, Any] = {}
    for name in _NUMBERS:
        text = str(form.get(name) or "auto").strip().lower()
        if text == "auto":
            continue
        try:
            given[name] = _decimal(text) if name == "learning_rate_multiplier" else int(text)
        except ValueError:
            raise InvalidRequest(
                f"{name} must be auto or a number.", param=f"hyperparameters.{name}"
            ) from None
    if str(form.get("method") or "") == "dpo":
        given["beta"] = _beta(str(form.get("beta") or "auto").strip().lower())
    return Hyperparameters(**given)


def _beta(text: str) -> float | Auto:
    if text == "auto":
        return "auto"
    try:
        return _decimal(text)
    except ValueError:
        raise InvalidRequest(
            "beta must be auto or a number.", param="hyperparameters.beta"
        ) from None


def _decimal(text: str) -> float:
    """A number as readers write it: with a point or a comma."""
    return float(text.replace(",", "."))


def _within(text: str, param: str, most: int) -> int | None:
    value = _number(text, param)
    if value is not None and not 1 <= value <= most:
        raise InvalidRequest(f"{param} must be from 1 to {most}.", param=param)
    return value


def _number(text: str, param: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidRequest(f"{param} must be a whole number.", param=param)
    return int(text)


ROUTES: Final = (
    ("GET", "/tune", show),
    ("POST", "/tune", create),
    ("POST", "/tune/estimate", estimate),
)
