"""Rates of training: finished jobs answer, like ones first, and one bad day does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afina.domain.foresight import Network
from afina.domain.rates import (
    OVERHEAD_S,
    Costs,
    Load,
    PastRun,
    TrainingRate,
    Workload,
    learned_rate,
)
from afina.domain.ways import Way

HERE = Workload("b" * 64, machine="cpu, 2 cores")


USUAL = Load(20 * 512, 80, 20, 10 * 512, 128)


def run(rate: float, step_tokens: int = 512, around: float | None = 9.0) -> PastRun:
    tokens = step_tokens * 20
    load = Load(tokens, tokens // 128, 20)
    return PastRun(HERE, tokens, 20, Costs().usual_tokens(load) / rate, around)


def test_the_median_of_the_last_jobs_is_the_rate() -> None:
    found = learned_rate([run(1), *[run(400)] * 3, run(40), run(410), run(390)], HERE)
    assert found is not None
    assert found.tokens_per_s == pytest.approx(400.0)
    assert (found.overhead_s, found.jobs) == (9.0, 7)
    last = learned_rate([run(1)] * 99 + [run(400)] * 7, HERE)
    assert last is not None
    assert last.tokens_per_s == pytest.approx(400.0)


def test_jobs_with_steps_of_the_same_size_are_asked_first() -> None:
    past = [*[run(200, 100)] * 7, *[run(500, 4000)] * 7]
    small, large = (learned_rate(past, HERE, tokens) for tokens in (120, 3000))
    assert small is not None
    assert large is not None
    assert (small.tokens_per_s, large.tokens_per_s) == pytest.approx((200.0, 500.0))


def test_tokens_of_usual_chats_weigh_one_and_others_what_they_cost() -> None:
    costs = Costs()
    assert costs.usual_tokens(USUAL) == pytest.approx(USUAL.tokens)
    for dearer in (
        replace(USUAL, steps=80),
        replace(USUAL, rows=20, longest=600),
        replace(USUAL, learned=USUAL.tokens),
    ):
        assert costs.usual_tokens(dearer) > 1.05 * USUAL.tokens
    assert TrainingRate(100.0).training_seconds(USUAL) == pytest.approx(USUAL.tokens / 100)
    assert TrainingRate(100.0).seconds(USUAL) == pytest.approx(OVERHEAD_S + USUAL.tokens / 100)


def test_costs_follow_the_networks_shape() -> None:
    starter = Network(134_515_008, 576, 30, 9, 3, 64, 1536, 49152, 2)
    of_starter = Costs.of(starter)
    assert of_starter.learned == pytest.approx(Costs().learned, rel=0.1)
    assert 1 / of_starter.compared == pytest.approx(1 / Costs().compared, rel=0.1)
    assert of_starter.step == pytest.approx(Costs().step, rel=0.1)
    wider = replace(starter, parameters=500_000_000, width=1024)
    assert Costs.of(wider).step < of_starter.step


def test_records_of_older_versions_count_as_usual_chats() -> None:
    old = PastRun(HERE, USUAL.tokens, USUAL.steps, 10.0, None)
    assert Costs().usual_tokens(old.load) == pytest.approx(USUAL.tokens)


def test_other_bases_and_machines_say_nothing() -> None:
    for other in (replace(HERE, base_sha256="c"), replace(HERE, machine="another")):
        assert learned_rate([replace(run(400), workload=other)], HERE) is None
    assert learned_rate([], HERE) is None


def test_jobs_of_another_way_are_weighed_and_asked_where_none_is_alike() -> None:
    full = Workload(HERE.base_sha256, "full", machine=HERE.machine)
    weighed = learned_rate([run(400)], full, way=Way("full"))
    assert weighed is not None
    assert not weighed.alike
    assert "in other ways" in weighed.origin
    load = replace(USUAL, way=Way("full"))
    assert weighed.training_seconds(load) > 1.3 * TrainingRate(400.0).training_seconds(USUAL)
    own = PastRun(full, USUAL.tokens, USUAL.steps, 99.0, 9.0, way=Way("full"))
    found = learned_rate([own, *[run(400)] * 9], full, way=Way("full"))
    assert found is not None
    assert (found.jobs, found.alike) == (1, True)
    again = replace(USUAL, way=Way("full"), rows=own.load.rows, learned=None, longest=0)
    assert found.training_seconds(again) == pytest.approx(99.0)


def test_work_follows_the_way() -> None:
    costs = Costs()
    usual = costs.usual_tokens(USUAL)
    for dearer in (
        Way(targets=("q_proj", "v_proj")),
        Way(dropout=0.1),
        Way("dora"),
        Way(base_bits=4),
        Way("full"),
        Way(pairs=True),
    ):
        assert costs.usual_tokens(replace(USUAL, way=dearer)) > 1.1 * usual, dearer
    blocks = replace(USUAL, way=Way("blocks", layers=7))
    assert costs.usual_tokens(blocks) < usual
    more = replace(blocks, epochs=3, tokens=3 * USUAL.tokens, rows=240, steps=60, learned=15360)
    assert costs.usual_tokens(more) < 2.5 * costs.usual_tokens(blocks), "below they go once"


def test_what_rows_share_is_weighed_once() -> None:
    half = replace(USUAL, computed=USUAL.tokens // 2)
    assert Costs().usual_tokens(half) < 0.75 * Costs().usual_tokens(USUAL)


def test_a_job_that_was_resumed_says_nothing_of_what_is_around() -> None:
    found = learned_rate([run(400, around=None)], HERE)
    assert found is not None
    assert found.overhead_s == OVERHEAD_S


def test_a_rate_says_where_it_comes_from() -> None:
    assert "the one job" in TrainingRate(1.0, jobs=1).origin
    assert "last 5 jobs" in TrainingRate(1.0, jobs=5).origin
    assert "no job" in TrainingRate(1.0).origin
    assert "busy" in TrainingRate(1.0, busy=True).origin
