"""A gate that is asked again after the rows of its model are gone."""

from __future__ import annotations

from typing import Any

from tests.gates import report

from afina.domain.sayings import say
from afina.evaluation.gate import GateReport, Limits, Part, not_measured, quality
from afina.pipeline.gate import shown
from afina.pipeline.gate_stage import with_former
from afina.store.gates import GateRow

LIMITS = Limits(0.1, 1.0, 0.05, 0.25, 1.0)


def made(*parts: Part, verdict: str = "passed") -> dict[str, Any]:
    reasons = tuple(reason for part in parts for reason in part.reasons)
    verdict = "failed" if reasons else verdict
    return shown(GateReport("default", "0" * 64, verdict, reasons, parts, 1.0, 45.0, "judge"))


def row(found: dict[str, Any] | None) -> GateRow:
    return GateRow("ft:x", "job", "hold", "default", "pending", 1, found)


GONE = not_measured("quality", say("rows_gone"))


def test_what_was_measured_by_rows_that_are_gone_stays_and_counts() -> None:
    worse = made(quality([1.0, 1.0], [3.0, 3.1], "training", LIMITS))
    found = with_former(row(worse), made(GONE))
    assert found["parts"] == worse["parts"]
    assert (found["verdict"], found["reasons"]) == ("failed", worse["reasons"])


def test_what_nobody_measured_is_said_to_be_missing() -> None:
    for former in (None, report("passed"), made(GONE)):
        found = with_former(row(former), made(GONE))
        (part,) = found["parts"]
        assert (found["verdict"], part["measured"]) == ("passed", False)
        assert "not on this machine any more" in part["note"]


def test_what_is_measured_again_takes_the_place_of_what_was() -> None:
    worse = made(quality([1.0, 1.0], [3.0, 3.1], "training", LIMITS))
    better = made(quality([1.0, 1.0], [0.5, 0.6], "training", LIMITS))
    assert with_former(row(worse), better) == better
