"""Verdicts of the gate: states, reports that follow, release and hold, cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.platforms import publish, run_to_running, start_job

from afina.domain.accounts import Caller
from afina.domain.models import ModelState
from afina.errors import Conflict, ModelNotFound, NotFound
from afina.service import gate
from afina.service.audit import list_audit
from afina.service.card import card_of
from afina.service.card_page import card_page
from afina.service.gate import GateOutcome
from afina.service.models import resolve_model
from afina.service.platform import Platform
from afina.store import events, gates
from afina.store.gates import GateRow

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}


def report(verdict: str, *, measured: bool = True) -> dict[str, Any]:
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


def published(platform: Platform, caller: Caller, scratch: Path) -> tuple[str, str]:
    """A tuned model with a gate that waits for its report, and its job."""
    start_job(platform, caller)
    job = publish(platform, run_to_running(platform), scratch)
    assert job.fine_tuned_model is not None
    row = GateRow(job.fine_tuned_model, job.id, "report", "default", "pending", 1)
    with platform.database.write() as tx:
        gates.insert_gate(tx, row, platform.clock.now())
    return job.fine_tuned_model, job.id


@pytest.mark.parametrize(
    ("policy", "found", "state"),
    [
        ("off", None, ModelState.RELEASED),
        ("report", None, ModelState.RELEASED),
        ("report", report("failed"), ModelState.RELEASED),
        ("hold", report("passed"), ModelState.RELEASED),
        ("hold", report("failed"), ModelState.HELD),
        ("hold", report("incomplete", measured=False), ModelState.HELD),
        ("hold", None, ModelState.HELD),
    ],
)
def test_only_hold_holds_and_what_was_not_measured_is_not_safe(
    policy: str, found: dict[str, Any] | None, state: ModelState
) -> None:
    assert GateOutcome(policy, "default", found).state is state


def test_a_report_is_made_by_one_worker_and_told_once(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job_id = published(platform, caller, tmp_path)
    row = gate.next_gate(platform)
    assert row is not None
    assert gate.next_gate(platform) is None
    for _ in range(2):
        gate.finish(platform, row, report("failed"), "")
    with platform.database.read() as tx:
        said = [event for event in events.all_events(tx, job_id) if name in event.message]
    assert [event.type for event in said if event.type != "message"] == ["moderation_checks"]
    assert "it learned to insult" in said[-1].message
    assert resolve_model(platform, caller, name).name == name


def test_a_held_model_says_why_and_answers_when_it_is_released(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, _ = published(platform, caller, tmp_path)
    row = gate.next_gate(platform)
    assert row is not None
    gate.finish(platform, row, report("failed"), "")
    gate.hold(platform, caller, name)
    with pytest.raises(ModelNotFound, match="it learned to insult"):
        resolve_model(platform, caller, name)
    gate.release(platform, caller, name)
    assert resolve_model(platform, caller, name).name == name
    kinds = [entry.type for entry in list_audit(platform, replace_kind(caller)).data]
    assert kinds[:2] == ["model.released", "model.held"]
    with pytest.raises(Conflict, match="released already"):
        gate.release(platform, caller, name)


def test_another_project_neither_sees_nor_releases_a_model(
    platform: Platform, caller: Caller, stranger: Caller, tmp_path: Path
) -> None:
    name, _ = published(platform, caller, tmp_path)
    for act in (gate.release, gate.hold):
        with pytest.raises(NotFound):
            act(platform, stranger, name)
    with pytest.raises(ModelNotFound):
        card_of(platform, stranger, name)


def test_a_card_says_where_a_model_comes_from_and_its_page_escapes_it(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job_id = published(platform, caller, tmp_path)
    assert "on the way" in card_page(card_of(platform, caller, name))
    row = gate.next_gate(platform)
    assert row is not None
    gate.finish(platform, row, report("failed", measured=False), "")
    card = card_of(platform, caller, name)
    assert card["method"]["job"] == job_id
    assert card["gate"]["report"]["verdict"] == "failed"
    page = card_page(card)
    assert "there is no &lt;judge&gt;" in page
    assert name in page


def replace_kind(caller: Caller) -> Caller:
    """The caller as one who may read the audit log."""
    from afina.domain.accounts import KeyKind

    return replace(caller, kind=KeyKind.ADMIN)


def test_abilities_that_are_surely_gone_are_told_though_no_limit_holds_the_model(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job = published(platform, caller, tmp_path)
    row = gate.next_gate(platform)
    assert row is not None
    made = report("passed")
    lost = {"value": 0.96, "low": 0.8, "high": 0.99, "n": 25}
    made["parts"].append(
        {"name": "regression", "measured": True, "passed": True, "measures": {"lost": lost}}
    )
    gate.finish(platform, row, made, "")
    with platform.database.read() as tx:
        said = [event.message for event in events.all_events(tx, job)]
    assert any(text.startswith("24 of 25 abilities") for text in said)
    assert said[-1] == f"The gate passed {name}"
