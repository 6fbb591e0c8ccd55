"""Answers are the same with drafts as without, greedy and sampled, to the bit; only steps are fewer.

Tokens are compared, and in bf16 the log-probabilities beside them bit by bit: a draft's row computes
what a plain step computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.engine_rig import load_adapter, make_data, make_lane, put_adapter

from afina.serving.drafts import DraftIndex
from afina.serving.lane import Lane
from afina.serving.protocol import Delta, Generate
from afina.serving.small_weights import Bits
from afina.serving.tickets import generate_ticket

PROMPTS = ([5, 9, 33, 70, 12], list(range(40, 75)), [200, 201, 8] * 7)
MANNERS = ((0.0, 1.0), (0.9, 1.0), (1.3, 0.8))
TOKENS = 40


@dataclass
class Told:
    """What a request was told: ids and log-probabilities by choice, and how each ended."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[float]] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)


def requests(adapters: list[str | None], **changes: object) -> list[Generate]:
    found = []
    for i, adapter in enumerate(adapters):
        for j, (temperature, top_p) in enumerate(MANNERS):
            request = Generate(
                request_id=f"r{i}-{j}",
                base="tiny",
                prompt=PROMPTS[(i + j) % len(PROMPTS)],
                max_tokens=TOKENS,
                seed=100 * i + j,
                adapter=adapter,
                n=2 if j == 1 else 1,
                temperature=temperature,
                top_p=top_p,
                logprobs=2,
            )
            for name, value in changes.items():
                setattr(request, name, value)
            found.append(request)
    return found


def answered(lane: Lane, asked: list[Generate], together: int) -> tuple[dict[str, Told], int]:
    """What each request is told, `together` at a time, and how many steps that took."""
    told = {request.request_id: Told() for request in asked}
    steps = 0
    for start in range(0, len(asked), together):
        for request in asked[start : start + together]:
            assert lane.submit(generate_ticket(request, lane)).lines == []
        while not lane.is_idle:
            steps += 1
            assert steps < 5000
            for delivery in lane.step():
                for line in delivery.lines:
                    if isinstance(line, Delta):
                        _take(told[delivery.request_id], line)
    return told, steps


def _take(told: Told, delta: Delta) -> None:
    told.ids.setdefault(delta.choice, []).extend(delta.ids)
    told.logprobs.setdefault(delta.choice, []).extend(one.logprob for one in delta.logprobs)
    if delta.finish is not None:
        told.finish[delta.choice] = delta.finish


def index_of(asked: list[Generate], told: dict[str, Told], *, wrong: bool = False) -> DraftIndex:
    """An index of what was answered; a wrong one parts from it after every third token."""
    rows = []
    for request in asked:
        for ids in told[request.request_id].ids.values():
            row = np.array(request.prompt + ids, np.int32)
            if wrong:
                row[len(request.prompt) + 2 :: 3] = 3
            rows.append((row, np.arange(len(row)) >= len(request.prompt)))
    return DraftIndex(rows)


def rig(folder: Path, precision: str) -> tuple[Lane, list[str | None]]:
    bits: Bits | None = 4 if precision == "int4" else None
    precision = "bf16" if bits else precision
    settings, record = make_data(folder, precision)
    lane = make_lane(settings.models / record.id, precision, bits=bits)
    names = [put_adapter(settings, record, seed, strength=0.3) for seed in (1, 2)]
    for name in names:
        load_adapter(settings, lane, name)
    return lane, list(names)


@pytest.mark.parametrize("precision", ["bf16", "fp32", "int4"])
@pytest.mark.parametrize("together", [1, 3])
def test_answers_and_their_bits_are_the_same_with_drafts_as_without(
    precision: str, together: int, tmp_path: Path
) -> None:
    lane, adapters = rig(tmp_path, precision)
    asked = requests(adapters)
    plain, steps = answered(lane, asked, together)
    assert all(len(ids) == TOKENS for told in plain.values() for ids in told.ids.values())
    for wrong in (False, True):
        index = index_of(asked, plain, wrong=wrong)
        for name in adapters:
            lane.speculation.know(str(name), index)
        drafted, fewer = answered(lane, asked, together)
        for name, told in plain.items():
            assert drafted[name].ids == told.ids
            assert drafted[name].finish == told.finish
            for choice, expected in told.logprobs.items():
                found = drafted[name].logprobs[choice]
                if precision != "fp32":
                    assert found == expected
                else:
                    np.testing.assert_allclose(found, expected, atol=2e-5)
        assert fewer < (steps * 2 / 3 if not wrong else steps)


def test_an_answer_ends_in_the_middle_of_a_draft_where_it_ends_without(tmp_path: Path) -> None:
    lane, adapters = rig(tmp_path, "bf16")
    free = lane.scheduler.free_blocks
    asked = requests(adapters[:1])
    whole, _ = answered(lane, asked, 1)
    lane.speculation.know(str(adapters[0]), index_of(asked, whole))
    for end in (7, 8, 9, 10, 11):
        told, _ = answered(lane, requests(adapters[:1], max_tokens=end), 1)
        for name, one in told.items():
            for choice, ids in one.ids.items():
                assert ids == whole[name].ids[choice][:end]
                assert one.finish[choice] == "length"
    for request in asked:
        ids = whole[request.request_id].ids[0]
        request.end_tokens = [ids[9]]
        place = ids.index(ids[9])
        request.n = 1
        told, _ = answered(lane, [request], 1)
        assert told[request.request_id].ids[0] == ids[:place]
        assert told[request.request_id].finish[0] == "stop"
    lane.scheduler.prefixes.let_go(10_000)
    assert lane.scheduler.free_blocks == free


def test_answers_that_depend_on_more_than_logits_are_not_drafted(tmp_path: Path) -> None:
    lane, adapters = rig(tmp_path, "bf16")
    asked = requests(adapters[:1], frequency_penalty=0.5)
    plain, steps = answered(lane, asked, 1)
    lane.speculation.know(str(adapters[0]), index_of(asked, plain))
    again, as_many = answered(lane, asked, 1)
    assert (again, as_many) == (plain, steps)
