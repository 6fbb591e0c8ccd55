"""Rates of training: finished jobs answer, like ones first, and one bad day does not."""

from __future__ import annotations

from dataclasses import replace

from afina.domain.rates import OVERHEAD_S, PastRun, TrainingRate, Workload, learned_rate

HERE = Workload("b" * 64, machine="cpu, 2 cores")


def run(rate: float, step_tokens: int = 1000, around: float | None = 9.0) -> PastRun:
    return PastRun(HERE, step_tokens * 20, 20, step_tokens * 20 / rate, around)


def test_the_median_of_the_last_jobs_is_the_rate() -> None:
    found = learned_rate([run(1), *[run(400)] * 3, run(40), run(410), run(390)], HERE)
    assert found == TrainingRate(400.0, overhead_s=9.0, jobs=7)
    assert learned_rate([run(1)] * 99 + [run(400)] * 7, HERE) == TrainingRate(400.0, 9.0, 7)


def test_jobs_with_steps_of_the_same_size_are_asked_first() -> None:
    past = [*[run(200, 100)] * 7, *[run(500, 4000)] * 7]
    small, large = (learned_rate(past, HERE, tokens) for tokens in (120, 3000))
    assert small is not None
    assert large is not None
    assert (small.tokens_per_s, large.tokens_per_s) == (200.0, 500.0)


def test_other_bases_methods_and_machines_say_nothing() -> None:
    for other in (
        replace(HERE, base_sha256="c"),
        replace(HERE, kind="full"),
        replace(HERE, method="dpo"),
        replace(HERE, machine="another"),
    ):
        assert learned_rate([replace(run(400), workload=other)], HERE) is None
    assert learned_rate([], HERE) is None


def test_a_job_that_was_resumed_says_nothing_of_what_is_around() -> None:
    found = learned_rate([run(400, around=None)], HERE)
    assert found is not None
    assert found.overhead_s == OVERHEAD_S


def test_a_rate_says_where_it_comes_from() -> None:
    assert "the one job" in TrainingRate(1.0, jobs=1).origin
    assert "last 5 jobs" in TrainingRate(1.0, jobs=5).origin
    assert "no job" in TrainingRate(1.0).origin
    assert "busy" in TrainingRate(1.0, busy=True).origin
