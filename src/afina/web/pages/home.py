"""Home: what is running, what failed and why, the month's tokens and money, and the next step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from afina.domain.jobs import Job, JobStatus
from afina.service import bases, files, jobs, models, usage
from afina.service.files import FileQuery
from afina.service.job_feed import last_step
from afina.web.pages.jobs import trained_on
from afina.web.render import page
from afina.web.sayings import Fault, fault
from afina.web.visit import Visit

_SHOWN: Final = 5
_LOOKED_AT: Final = 50


def show(visit: Visit) -> Response:
    """The first page."""
    platform, caller = visit.platform, visit.caller
    recent = jobs.list_jobs(platform, caller, limit=_LOOKED_AT).data
    tuned = [m for m in models.list_models(platform, caller) if m.tuned and m.tuned.step is None]
    rows = files.list_files(platform, caller, FileQuery(limit=1)).data
    return page(
        visit,
        "home.html",
        {
            "running": [(job, _here(visit, job)) for job in recent if not job.status.is_terminal],
            "failed": [(job, _why(visit, job)) for job in recent if job.status is JobStatus.FAILED][
                :_SHOWN
            ],
            "recent": recent[:_SHOWN],
            "names": trained_on(visit, recent),
            "models": tuned[:_SHOWN],
            "bases": bases.list_bases(platform),
            "step": _next_step(bool(rows), recent, bool(tuned)),
            "month": _month(visit),
        },
    )


def _why(visit: Visit, job: Job) -> Fault | None:
    return None if job.error is None else fault(visit.texts, job.error)


def _here(visit: Visit, job: Job) -> tuple[int, int] | None:
    """The step where a job is, and how many there are; None before its first."""
    found = last_step(visit.platform, visit.caller, job.id)
    return None if found is None else (int(found["step"]), int(found["total_steps"]))


def _next_step(has_files: bool, recent: tuple[Job, ...], has_models: bool) -> str:
    """What somebody who comes here does next: data, tune, watch or play."""
    if has_models:
        return "play"
    if any(not job.status.is_terminal for job in recent):
        return "watch"
    return "tune" if has_files else "data"


def _month(visit: Visit) -> dict[str, Any]:
    now = datetime.fromtimestamp(visit.platform.now(), UTC)
    start = int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    sums = usage.summarize(visit.platform, visit.caller, usage.UsageQuery(start, None, ("kind",)))
    return {
        "start": start,
        "trained": sum(group.trained_tokens for group in sums),
        "asked": sum(group.prompt_tokens + group.completion_tokens for group in sums),
        "requests": sum(group.entries for group in sums if dict(group.group)["kind"] != "training"),
        "cost": sum(group.amount_pico for group in sums),
    }


ROUTES: Final = (("GET", "/", show),)
