"""What the end of a trainer means, and when trying again is given up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from afina.domain.jobs import JobError
from afina.domain.runs import RunEvent, RunPaths
from afina.pipeline.exits import (
    LEFT,
    SAME_STEP_KILLED_LIMIT,
    Exit,
    give_up,
    judge_exit,
    next_attempt,
    pause_before_next,
    read_exits,
    write_exit,
)

FAILED = RunEvent(9, 0.0, "failed", {"code": "not_finite", "message": "No number.", "remedy": "R."})
STEP = RunEvent(8, 0.0, "step", {"step": 1})
KILLED = -int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("code", "has_result", "last", "kind"),
    [
        (0, True, STEP, "finished"),
        (0, False, STEP, "crashed"),
        (75, False, STEP, "left"),
        (75, True, STEP, "left"),
        (1, False, FAILED, "failed"),
        (1, False, STEP, "crashed"),
        (1, False, None, "crashed"),
        (139, False, FAILED, "crashed"),
        (KILLED, False, FAILED, "crashed"),
    ],
)
def test_exit_codes_mean_what_the_contract_says(
    code: int, has_result: bool, last: RunEvent | None, kind: str
) -> None:
    assert judge_exit(code, has_result, last).kind == kind


def test_a_failure_carries_the_trainers_words() -> None:
    assert judge_exit(1, False, FAILED).error == JobError("not_finite", "No number. R.")


def test_a_crash_that_comes_back_at_one_step_is_a_failure_after_three() -> None:
    same = [Exit(-11, 4)] * 3
    assert give_up(same[:2], 20) is None
    error = give_up(same, 20)
    assert error is not None
    assert error.code == "server_error"
    assert "3 times at step 4" in error.message
    assert "SIGSEGV" in error.message


def test_progress_between_crashes_earns_more_attempts_up_to_the_limit() -> None:
    assert give_up([Exit(-11, step) for step in range(19)], 20) is None
    assert give_up([Exit(-11, step) for step in range(20)], 20) is not None


def test_kills_from_outside_are_borne_longer_and_the_error_names_memory() -> None:
    kills = [Exit(KILLED, 0)] * SAME_STEP_KILLED_LIMIT
    assert give_up(kills[1:], 20) is None
    error = give_up(kills, 20)
    assert error is not None
    assert "memory" in error.message


def test_leaving_is_no_crash() -> None:
    assert give_up([Exit(LEFT, 0)] * 50, 20) is None
    assert pause_before_next([Exit(LEFT, 0)] * 50) == 0.0


def test_an_attempt_that_was_paused_is_no_crash() -> None:
    paused = Exit(0, 4, has_result=True)
    assert give_up([paused] * 50, 20) is None
    assert pause_before_next([paused] * 50) == 0.0
    assert give_up([Exit(-11, 4), paused, Exit(-11, 4)], 20) is None


def test_pauses_grow_while_no_step_is_gained_and_shrink_again() -> None:
    assert pause_before_next([Exit(-11, 1)]) == 0.5
    assert pause_before_next([Exit(-11, 1)] * 2) == 1.0
    assert pause_before_next([Exit(-11, 1)] * 9) == 30.0
    assert pause_before_next([Exit(-11, 1), Exit(-11, 1), Exit(-11, 2)]) == 0.5


def test_attempts_without_an_end_count_for_nothing(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert next_attempt(paths) == 1
    for number in (1, 2, 3):
        paths.attempt(number).mkdir()
    write_exit(paths, 1, Exit(-11, 2))
    write_exit(paths, 3, Exit(75, 4))
    assert read_exits(paths) == [Exit(-11, 2), Exit(75, 4)]
    assert next_attempt(paths) == 4
