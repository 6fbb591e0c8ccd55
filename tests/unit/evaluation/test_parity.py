"""The verdict on whether a tune is served as it was trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from afina.domain.codec import decode, encode
from afina.domain.runs import ParityRow
from afina.errors import Internal
from afina.evaluation.parity import MEAN_KL_LIMITS, ParityFailed, ParityReport, compare
from afina.serving.protocol import Scored

BEST = (math.log(0.6), math.log(0.3), math.log(0.05))


def row(positions: int = 4) -> ParityRow:
    return ParityRow(
        prompt_ids=(1, 2),
        ids=(7,) * positions,
        logprobs=(BEST[0],) * positions,
        top_ids=((7, 8, 9),) * positions,
        top_logprobs=(BEST,) * positions,
    )


def scored(row: ParityRow, precision: str = "bf16") -> Scored:
    return Scored(
        list(row.logprobs),
        [list(i) for i in row.top_ids],
        [list(p) for p in row.top_logprobs],
        precision,
    )


def test_the_same_numbers_pass_with_a_difference_of_nothing() -> None:
    report = compare([row(), row()], scored, "bf16")
    assert report.passed
    assert (report.mean_kl, report.largest_difference, report.agreement) == (0.0, 0.0, 1.0)
    assert (report.prompts, report.positions) == (2, 8)
    report.check()


def test_a_report_survives_json() -> None:
    report = compare([row()], scored, "fp32")
    assert decode(ParityReport, json.loads(json.dumps(encode(report)))) == report


def test_a_small_difference_passes_in_bf16_and_fails_in_fp32() -> None:
    def slightly_off(one: ParityRow) -> Scored:
        moved = scored(one, "fp32")
        moved.top_logprobs = [
            [p + 0.01 * (-1) ** i for i, p in enumerate(ps)] for ps in moved.top_logprobs
        ]
        return moved

    assert compare([row()], slightly_off, "bf16").passed
    report = compare([row()], slightly_off, "fp32")
    assert not report.passed
    assert "KL" in report.reasons[0]
    with pytest.raises(ParityFailed):
        report.check()


def test_another_first_choice_fails_only_where_the_trainer_was_sure() -> None:
    def other_first(one: ParityRow) -> Scored:
        swapped = scored(one)
        swapped.top_ids = [[8, 7, 9]] * 4
        return swapped

    report = compare([row()], other_first, "bf16")
    assert not report.passed
    assert report.agreement == 0.0
    assert report.largest_margin == pytest.approx(math.log(2))
    close = replace(row(), top_logprobs=((math.log(0.45), math.log(0.449), BEST[2]),) * 4)
    assert compare([close], other_first, "bf16").largest_margin < 0.01


def test_candidates_that_the_engine_does_not_list_are_not_overlooked() -> None:
    def elsewhere(one: ParityRow) -> Scored:
        return Scored([-9.0] * 4, [[100, 101, 102]] * 4, [[-0.1, -3.0, -4.0]] * 4)

    report = compare([row()], elsewhere, "bf16")
    assert report.mean_kl > 1.0
    assert not report.passed


def test_scores_of_another_length_are_an_error() -> None:
    with pytest.raises(Internal):
        compare([row(4)], lambda one: scored(row(3)), "bf16")
    with pytest.raises(Internal):
        compare([], scored, "bf16")


def moved(one: ParityRow, by: Sequence[float]) -> Scored:
    """The engine's word where the first candidate of each position lies so much lower."""
    found = scored(one)
    found.top_logprobs = [
        [ps[0] - nat, *ps[1:]] for ps, nat in zip(one.top_logprobs, by, strict=True)
    ]
    return found


def test_chance_is_granted_to_few_positions_and_not_to_many() -> None:
    uneven = (0.0, 0.0, 0.0, 0.15)
    few = compare([row(4)], lambda one: moved(one, uneven), "bf16")
    assert few.mean_kl > MEAN_KL_LIMITS["bf16"]
    assert few.passed
    many = compare([row(400)], lambda one: moved(one, uneven * 100), "bf16")
    assert many.mean_kl == pytest.approx(few.mean_kl)
    assert not many.passed


def test_no_chance_is_granted_where_all_positions_differ_alike_or_by_much() -> None:
    alike = compare([row(4)], lambda one: moved(one, (0.08,) * 4), "bf16")
    assert MEAN_KL_LIMITS["bf16"] < alike.mean_kl < 4 * MEAN_KL_LIMITS["bf16"]
    assert not alike.passed
    much = compare([row(4)], lambda one: moved(one, (0.0, 0.0, 0.0, 1.0)), "bf16")
    assert not much.passed
    assert much.mean_kl_limit == 4 * MEAN_KL_LIMITS["bf16"]
