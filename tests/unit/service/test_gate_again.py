"""A gate that is asked again: what it decides, what people decided, what is shown meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.gates import replace_kind, report, states
from tests.platforms import (
    BASE,
    add_base,
    checkpoint_of,
    publish,
    run_to_running,
    start_job,
)

from afina.domain.accounts import Caller
from afina.domain.models import ModelState
from afina.errors import Conflict, ModelNotFound, NotFound
from afina.service import gate, gate_reports
from afina.service.audit import list_audit
from afina.service.card import card_of
from afina.service.card_page import card_page
from afina.service.gate import GateOutcome
from afina.service.models import resolve_model
from afina.service.platform import Platform
from afina.store import events


def asked_again(
    platform: Platform, caller: Caller, scratch: Path, first: dict[str, Any] | None, note: str = ""
) -> tuple[str, str]:
    """A model of policy `hold` whose gate is being asked again, and its job."""
    start_job(platform, caller, suffix="bot")
    outcome = GateOutcome("hold", "default", first, note or None)
    job = publish(platform, run_to_running(platform), scratch, gate=outcome)
    name = str(job.fine_tuned_model)
    add_base(platform, BASE)
    gate_reports.ask_again(platform, caller, name)
    return name, job.id


def measured(platform: Platform, found: dict[str, Any] | None, note: str = "") -> None:
    row = gate_reports.next_gate(platform)
    assert row is not None
    gate_reports.finish(platform, row, found, note)


UNSAFE = report("incomplete", measured=False)


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        (UNSAFE, report("passed"), ModelState.RELEASED),
        (None, report("passed"), ModelState.RELEASED),
        (UNSAFE, report("failed"), ModelState.HELD),
        (UNSAFE, UNSAFE, ModelState.HELD),
        (report("passed"), report("failed"), ModelState.HELD),
        (report("passed"), UNSAFE, ModelState.RELEASED),
    ],
)
def test_a_gate_that_is_asked_again_decides_anew_and_what_it_cannot_measure_changes_nothing(
    platform: Platform,
    caller: Caller,
    tmp_path: Path,
    first: dict[str, Any] | None,
    second: dict[str, Any],
    state: ModelState,
) -> None:
    name, job_id = asked_again(platform, caller, tmp_path, first, "no engine" if not first else "")
    before = states(platform, job_id)
    assert gate.gate_of(platform, name).report == first  # type: ignore[union-attr]
    measured(platform, second)
    assert states(platform, job_id) == {state}, "its checkpoints go with it"
    kinds = [entry.type for entry in list_audit(platform, replace_kind(caller)).data]
    changed = before != {state}
    assert ("model.gate_asked" in kinds, kinds[0].startswith("model.gate_")) == (True, True)
    assert (kinds[0] in gate.BY_GATE) == changed
    history = card_of(platform, caller, name)["history"]
    assert [one["by"] for one in history] == (["gate"] if changed else [])


@pytest.mark.parametrize("verb", [gate.release, gate.hold])
def test_a_gate_that_is_asked_again_does_not_undo_what_a_person_decided(
    platform: Platform, caller: Caller, tmp_path: Path, verb: Any
) -> None:
    first = "failed" if verb is gate.release else "passed"
    name, job_id = asked_again(platform, caller, tmp_path, report(first))
    state = verb(platform, caller, name).state
    measured(platform, report("passed" if first == "failed" else "failed"))
    assert states(platform, job_id) == {state}
    with platform.database.read() as tx:
        last = events.all_events(tx, job_id)[-1].message
    assert "held back" not in last
    assert ("it stays held" in last) == (first == "passed" and "passed" in last)
    page = card_page(card_of(platform, caller, name))
    assert ("held back by the gate when it was made" in page) == (verb is gate.release)


def test_what_a_gate_found_stays_until_it_has_found_something_else(
    platform: Platform, caller: Caller, tmp_path: Path
) -> None:
    name, job_id = asked_again(platform, caller, tmp_path, report("failed"))
    assert "It is being measured again" in card_page(card_of(platform, caller, name))
    with pytest.raises(ModelNotFound, match="it learned to insult; it is asked again"):
        resolve_model(platform, caller, name)
    measured(platform, None, "the <engine> stayed away")
    page = card_page(card_of(platform, caller, name))
    assert "could not be measured again (the &lt;engine&gt; stayed away)" in page
    assert states(platform, job_id) == {ModelState.HELD}
    with platform.database.read() as tx:
        said = [event.message for event in events.all_events(tx, job_id)]
    assert said[-2:] == [
        f"The gate measures {name} again",
        f"The gate of {name} could not be run: the <engine> stayed away",
    ]


def test_a_gate_is_asked_once_at_a_time_and_only_where_it_can_measure(
    platform: Platform, caller: Caller, stranger: Caller, tmp_path: Path
) -> None:
    start_job(platform, caller)
    job = publish(platform, run_to_running(platform), tmp_path)
    name = str(job.fine_tuned_model)
    with pytest.raises(NotFound):
        gate_reports.ask_again(platform, stranger, name)
    base = platform.settings.models / BASE / "afina.json"
    record = base.read_bytes()
    base.unlink()
    with pytest.raises(Conflict, match="is not on this machine"):
        gate_reports.ask_again(platform, caller, name)
    base.write_bytes(record)
    with pytest.raises(Conflict, match="is a checkpoint"):
        gate_reports.ask_again(platform, caller, checkpoint_of(platform, caller))
    row = gate_reports.ask_again(platform, caller, name, "full")
    assert (row.policy, row.suite, row.status) == ("report", "full", "pending")
    with pytest.raises(Conflict, match="is measuring"):
        gate_reports.ask_again(platform, caller, name)
    measured(platform, report("failed"))
    assert resolve_model(platform, caller, name).name == name, "policy report holds nothing"
    assert gate_reports.ask_again(platform, caller, name).suite == "full"
