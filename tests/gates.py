"""Reports of the gate for tests, and where models stand with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from afina.domain.accounts import Caller, KeyKind
from afina.domain.models import ModelState
from afina.service.platform import Platform
from afina.store import jobs, models

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}


def report(verdict: str, *, measured: bool = True) -> dict[str, Any]:
    """What a gate says that measured safety alone."""
    names = ("harmful_to_harmful", "harmful_to_harmless", "false_refusals")
    safety = {
        "name": "safety",
        "measured": measured,
        "passed": verdict == "passed",
        "measures": dict.fromkeys(names, INTERVAL) if measured else {},
        "details": {"categories": {"harassment": 3}},
        "reasons": [],
        "note": "" if measured else "there is no <judge>",
    }
    reasons = ["it learned to insult"] if verdict == "failed" else []
    return {
        "suite": "default",
        "suite_sha256": "0" * 64,
        "verdict": verdict,
        "reasons": reasons,
        "parts": [safety],
        "seconds": 1.5,
        "limit_seconds": 45.0,
        "judge": "a judge",
    }


def states(platform: Platform, job_id: str) -> set[ModelState]:
    """Of all that a job brought."""
    with platform.database.read() as tx:
        found = models.list_models(tx, jobs.get_job(tx, job_id).project_id)  # type: ignore[union-attr]
    return {model.state for model in found if model.job_id == job_id}


def replace_kind(caller: Caller) -> Caller:
    """The caller as one who may read the audit log."""

    return replace(caller, kind=KeyKind.ADMIN)
