"""Verdicts of the gate: states, reports that follow, release and hold, cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gates import replace_kind, report, states
from tests.platforms import (
    checkpoint_of,
    claim,
    clock_of,
    publish,
    run_to_running,
    start_job,
    tune_files,
)

from afina.domain.accounts import Caller
from afina.domain.jobs import Job, JobStatus
from afina.domain.models import ModelState
from afina.errors import Conflict, ModelNotFound, NotFound
from afina.service import gate, gate_reports
from afina.service.aliases import set_alias
from afina.service.audit import list_audit
from afina.service.card import card_of
from afina.service.card_page import card_page
from afina.service.gate import GateOutcome
from afina.service.jobs import pause_job, resume_job
from afina.service.models import resolve_model
from afina.service.platform import Platform
from afina.service.publish import Publication, PublishedTune, TuneFacts, store_tune
from afina.service.publish import pause_job as rest_job
from afina.store import events, gates, jobs
from afina.store.gates import GateRow


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
    row = gate_reports.next_gate(platform)
    assert row is not None
    assert gate_reports.next_gate(platform) is None
    for _ in range(2):
        gate_reports.finish(platform, row, report("failed"), "")
    with platform.database.read() as tx:
        said = [event for event in events.all_events(tx, job_id) if name in event.message]
    assert [event.type for event in said if event.type != "message"] == ["moderation_checks"]
    assert "it learned to insult" in said[-1].message
    assert resolve_model(platform, caller, name).name == name


def test_a_held_model_says_why_and_answers_when_it_is_released(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, _ = published(platform, caller, tmp_path)
    row = gate_reports.next_gate(platform)
    assert row is not None
    gate_reports.finish(platform, row, report("failed"), "")
    gate.hold(platform, caller, name)
    with pytest.raises(ModelNotFound, match="it learned to insult"):
        resolve_model(platform, caller, name)
    gate.release(platform, caller, name)
    assert resolve_model(platform, caller, name).name == name
    kinds = [entry.type for entry in list_audit(platform, replace_kind(caller)).data]
    assert kinds[:2] == ["model.released", "model.held"]
    with pytest.raises(Conflict, match="released already"):
        gate.release(platform, caller, name)


def test_a_models_checkpoints_are_held_and_released_with_it(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job_id = published(platform, caller, tmp_path)
    checkpoint = checkpoint_of(platform, caller)
    gate.hold(platform, caller, name)
    assert states(platform, job_id) == {ModelState.HELD}
    with pytest.raises(ModelNotFound, match=f"the key {caller.key_id} held it back"):
        resolve_model(platform, caller, checkpoint)
    gate.release(platform, caller, checkpoint)
    assert resolve_model(platform, caller, checkpoint).name == checkpoint
    with pytest.raises(ModelNotFound):
        resolve_model(platform, caller, name)
    gate.release(platform, caller, name)
    assert states(platform, job_id) == {ModelState.RELEASED}


def test_a_checkpoint_and_an_alias_say_why_the_gate_holds_what_they_mean(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    outcome = GateOutcome("hold", "default", report("failed"))
    first = publish(platform, run_to_running(platform), tmp_path)
    set_alias(platform, caller, "bot", str(first.fine_tuned_model))
    held = publish(platform, second_job(platform, caller), tmp_path, gate=outcome)
    name, checkpoint = str(held.fine_tuned_model), checkpoint_of(platform, caller)
    with pytest.raises(ModelNotFound, match="the gate of its job found: it learned to insult"):
        resolve_model(platform, caller, checkpoint)
    with pytest.raises(Conflict, match="an alias of it would answer nobody") as told:
        set_alias(platform, caller, "bot", name)
    assert name in str(told.value.remedy)
    gate.hold(platform, caller, str(first.fine_tuned_model))
    with pytest.raises(ModelNotFound, match=f"`{first.fine_tuned_model}`, which `bot` means") as no:
        resolve_model(platform, caller, "bot")
    assert f"afina models release {first.fine_tuned_model}" in str(no.value.remedy)


def test_what_a_pause_leaves_waits_for_the_gate_that_holds(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    job, snapshot = paused_with(platform, caller, tmp_path, GateOutcome("hold", "default"))
    with platform.database.read() as tx:
        told = events.all_events(tx, job.id)[-1].message
    assert told.endswith("it answers when the gate has passed what the job brings in the end")
    with pytest.raises(ModelNotFound, match="is asked at the job's end"):
        resolve_model(platform, caller, snapshot)
    resume_job(platform, caller, job.id)
    again = claim(platform)
    assert again is not None
    with platform.database.write() as tx:
        again = jobs.move_job(tx, again.id, again.fence, JobStatus.RUNNING)
    publish(platform, again, tmp_path, gate=GateOutcome("hold", "default", report("passed")))
    assert resolve_model(platform, caller, snapshot).name == snapshot


def test_what_a_pause_leaves_answers_at_once_where_the_gate_only_reports(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    _, snapshot = paused_with(platform, caller, tmp_path, GateOutcome("report", "default"))
    assert resolve_model(platform, caller, snapshot).name == snapshot


def test_no_checkpoint_and_no_older_model_takes_over_a_name_that_follows(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    old = publish(platform, second_job(platform, caller, suffix="bot"), tmp_path)
    checkpoint = checkpoint_of(platform, caller)
    clock_of(platform).advance(5)
    new = publish(platform, second_job(platform, caller, suffix="bot"), tmp_path)
    set_alias(platform, caller, "support", follows="bot")
    for name in (checkpoint, str(old.fine_tuned_model)):
        gate.hold(platform, caller, name)
        gate.release(platform, caller, name)
        assert resolve_model(platform, caller, "support").name == new.fine_tuned_model
    gate.hold(platform, caller, str(new.fine_tuned_model))
    gate.hold(platform, caller, str(old.fine_tuned_model))
    gate.release(platform, caller, str(old.fine_tuned_model))
    assert resolve_model(platform, caller, "support").name == old.fine_tuned_model


def test_each_measure_of_the_checks_passes_or_fails_by_itself(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    _, job_id = published(platform, caller, tmp_path)
    row = gate_reports.next_gate(platform)
    assert row is not None
    made = report("failed")
    rose = {"before_share": 0.0, "after_share": 0.9, "limit_share": 0.05}
    made["parts"][0]["faults"] = [{"name": "refusals_rose", "values": rose}]
    gate_reports.finish(platform, row, made, "")
    with platform.database.read() as tx:
        said = events.all_events(tx, job_id)
    checks = next(event.data for event in said if event.type == "moderation_checks")
    failed = [result["name"] for result in checks["results"] if not result["passed"]]
    assert failed == ["false_refusals"]


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
    assert "on their way" in card_page(card_of(platform, caller, name))
    row = gate_reports.next_gate(platform)
    assert row is not None
    gate_reports.finish(platform, row, report("failed", measured=False), "")
    card = card_of(platform, caller, name)
    assert card["method"]["job"] == job_id
    assert card["gate"]["report"]["verdict"] == "failed"
    page = card_page(card)
    assert "there is no &lt;judge&gt;" in page
    assert name in page


def second_job(platform: Platform, caller: Caller, **request: Any) -> Job:
    start_job(platform, caller, **request)
    return run_to_running(platform)


def paused_with(
    platform: Platform, caller: Caller, scratch: Path, outcome: GateOutcome
) -> tuple[Job, str]:
    """A paused job, and the model that the pause left."""
    job = second_job(platform, caller)
    pause_job(platform, caller, job.id)
    manifest = store_tune(
        platform, job, TuneFacts("b" * 64, "c" * 64, "d" * 64), tune_files(scratch / "rest", "half")
    )
    snapshot = Publication((PublishedTune(7, manifest),), 70, "c" * 64, gate=outcome)
    return rest_job(platform, job, snapshot, 70), checkpoint_of(platform, caller)


def test_abilities_that_are_surely_gone_are_told_though_no_limit_holds_the_model(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job = published(platform, caller, tmp_path)
    row = gate_reports.next_gate(platform)
    assert row is not None
    made = report("passed")
    lost = {"value": 0.96, "low": 0.8, "high": 0.99, "n": 25}
    made["parts"].append(
        {"name": "regression", "measured": True, "passed": True, "measures": {"lost": lost}}
    )
    gate_reports.finish(platform, row, made, "")
    with platform.database.read() as tx:
        said = [event.message for event in events.all_events(tx, job)]
    assert any(text.startswith("24 of 25 abilities") for text in said)
    assert said[-1] == f"The gate passed {name}"
