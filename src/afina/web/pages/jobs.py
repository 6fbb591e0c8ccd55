"""Jobs: the list, a job's page, live news, and what can be done with a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from anyio import to_thread
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from afina.domain.jobs import Job, JobStatus
from afina.domain.prices import Prices
from afina.errors import AfinaError, InvalidRequest
from afina.service import files, gate, jobs, models
from afina.service.estimates import JobEstimate, estimate_job
from afina.service.job_feed import news_of, overview_of, steps_of
from afina.service.job_request import JobRequest
from afina.service.pricing import prices_of
from afina.service.suspects import suspect_rows
from afina.web.live import point, state
from afina.web.points import thin
from afina.web.render import page
from afina.web.sayings import GateWords, fault, gate_words, heard
from afina.web.visit import Visit, form_of

_LISTED: Final = 200
_EVENTS: Final = 200
_MOST_COMPARED: Final = 6
FILTERS: Final = ("all", "active", "succeeded", "failed", "cancelled")
STAGES: Final = (
    "validating", "moderating", "redacting", "comparing", "tokenising", "queued", "training",
    "parity", "gate", "published",
)  # fmt: skip
"""The road in its order; a job passes by what it does not need."""


def show_list(visit: Visit) -> Response:
    """All jobs, by state and by name."""
    asked = visit.request.query_params
    which = asked.get("which", "all")
    if which not in FILTERS:
        raise InvalidRequest("There is no such filter.", param="which")
    words = asked.get("q", "").strip().lower()
    found = jobs.list_jobs(visit.platform, visit.caller, limit=_LISTED).data
    names = trained_on(visit, found)
    shown = [
        job for job in found if _fits(job, which) and _speaks_of(job, names.get(job.id, ""), words)
    ]
    values = {
        "jobs": shown, "which": which, "filters": FILTERS, "q": words, "all": len(found),
        "names": names,
    }  # fmt: skip
    return page(visit, "parts/job_list.html" if visit.is_partial else "jobs.html", values)


def show(visit: Visit) -> Response:
    """A job's page."""
    platform, caller = visit.platform, visit.caller
    job_id = visit.request.path_params["id"]
    found = overview_of(platform, caller, job_id, _EVENTS)
    news, job = found.news, found.news.job
    estimate = _estimate(visit, job)
    prices = prices_of(platform.settings, job.model)
    return page(
        visit,
        "job.html",
        {
            "job": job,
            "place": news.end,
            "state": state(news),
            "last": None if found.last is None else point(found.last),
            "messages": [(event, heard(visit.texts, event)) for event in found.messages],
            "fault": None if job.error is None else fault(visit.texts, job.error),
            "stages": _stages(visit, job),
            "checkpoints": jobs.list_checkpoints(platform, caller, job_id, limit=100).data,
            "files": _files(visit, job),
            "parity": _parity(visit, job),
            "estimate": estimate,
            "cost": _cost(job, prices),
            "suspects": suspect_rows(platform, caller, job),
            "can_pause": True,
            "gate": _gate(visit, job),
        },
    )


def points(visit: Visit) -> Response:
    """All steps' numbers so far, of very long runs the least and the most of each part, and the
    place from which live news go on."""
    news, steps = steps_of(visit.platform, visit.caller, visit.request.path_params["id"])
    name = news.job.suffix or news.job.id
    found = thin([point(data) for data in steps])
    return JSONResponse({"place": news.end, "points": found, "name": name})


def live(visit: Visit) -> Response:
    """News as server-sent events."""
    asked = visit.request.headers.get("last-event-id") or visit.request.query_params.get("after")
    if asked is not None and not (asked.isdecimal() and len(asked) < 12):
        raise InvalidRequest("This is not a place.", param="after")
    job_id = visit.request.path_params["id"]
    after = int(asked or 0)
    jobs.get_job(visit.platform, visit.caller, job_id)
    stream = visit.rooms.live.follow(visit.platform, visit.caller, job_id, after, visit.texts)
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def compare(visit: Visit) -> Response:
    """The curves of several jobs in one picture."""
    ids = visit.request.query_params.getlist("job")[:_MOST_COMPARED]
    chosen = [news_of(visit.platform, visit.caller, job_id).job for job_id in ids]
    return page(visit, "compare.html", {"jobs": chosen})


def _act(verb: Callable[..., Any], back: str | None = None) -> Callable[..., Any]:
    async def act(visit: Visit) -> Response:
        await form_of(visit)
        job_id = visit.request.path_params["id"]
        await to_thread.run_sync(verb, visit.platform, visit.caller, job_id)
        return RedirectResponse(back or f"/jobs/{job_id}", 303)

    return act


def _fits(job: Job, which: str) -> bool:
    if which == "active":
        return not job.status.is_terminal
    return which in ("all", job.status.value)


def trained_on(visit: Visit, shown: Iterable[Job]) -> dict[str, str]:
    """The name of each job's training file, by the job's id: nobody knows a job by that."""
    asked = {job.id: job.training_file for job in shown}
    names = files.names_of(visit.platform, visit.caller, set(asked.values()))
    return {job: names[file] for job, file in asked.items() if file in names}


def _speaks_of(job: Job, file: str, words: str) -> bool:
    labels = " ".join(f"{key} {value}" for key, value in (job.metadata or {}).items())
    text = f"{job.id} {job.suffix or ''} {job.model} {job.fine_tuned_model or ''} {labels} {file}"
    return words in text.lower()


def _stages(visit: Visit, job: Job) -> list[dict[str, str]]:
    """The road with what is behind, where the job is, and what is ahead."""
    settings = visit.platform.settings
    needed = {
        "moderating": settings.moderation.backend != "off",
        "redacting": settings.redact.enabled,
        "gate": job.extension.gate.policy == "hold",
    }
    names = [name for name in STAGES if needed.get(name, True) or name == job.stage]
    if job.stage not in names and job.stage != "created":
        names.insert(names.index("training") + 1, job.stage)
    here = names.index(job.stage) if job.stage in names else 0
    shown = []
    for place, name in enumerate(names):
        mark = "done" if place < here or job.status is JobStatus.SUCCEEDED else "ahead"
        if place == here and job.status is not JobStatus.SUCCEEDED:
            mark = "stopped" if job.status.is_terminal else "here"
        shown.append({"name": name, "mark": mark})
    return shown


def _files(visit: Visit, job: Job) -> list[tuple[str, Any, str]]:
    """Kind, file (None where it was deleted) and id of each of the job's files."""
    named = [("training", job.training_file), ("validation", job.validation_file)]
    named += [("results", name) for name in job.result_files]
    found: list[tuple[str, Any, str]] = []
    for kind, file_id in named:
        if file_id is None:
            continue
        try:
            found.append((kind, files.get_file(visit.platform, visit.caller, file_id), file_id))
        except AfinaError:
            found.append((kind, None, file_id))
    return found


def _parity(visit: Visit, job: Job) -> Any:
    if job.fine_tuned_model is None:
        return None
    try:
        entry = models.get_model(visit.platform, visit.caller, job.fine_tuned_model)
    except AfinaError:
        return None
    return None if entry.tuned is None else entry.tuned.parity


def _gate(visit: Visit, job: Job) -> GateWords | None:
    """What the gate says of the job's model, where one was asked for."""
    name = job.fine_tuned_model
    return None if name is None else gate_words(visit.texts, gate.gate_of(visit.platform, name))


def _estimate(visit: Visit, job: Job) -> JobEstimate | None:
    try:
        request = JobRequest(
            job.model,
            job.training_file,
            job.validation_file,
            hyperparameters=job.hyperparameters,
            method=job.method,
            extension=job.extension,
        )
        return estimate_job(visit.platform, visit.caller, request)
    except AfinaError:
        return None  # the file is gone or faulty: the job's own error says so


def _cost(job: Job, prices: Prices) -> int | None:
    return None if job.trained_tokens is None else prices.training_cost(job.trained_tokens)


ROUTES: Final = (
    ("GET", "/jobs", show_list),
    ("GET", "/jobs/compare", compare),
    ("GET", "/jobs/{id}", show),
    ("GET", "/jobs/{id}/points", points),
    ("GET", "/jobs/{id}/live", live),
    ("POST", "/jobs/{id}/cancel", _act(jobs.cancel_job)),
    ("POST", "/jobs/{id}/pause", _act(jobs.pause_job)),
    ("POST", "/jobs/{id}/resume", _act(jobs.resume_job)),
    ("POST", "/jobs/{id}/delete", _act(jobs.delete_job, "/jobs")),
)
