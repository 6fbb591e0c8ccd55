"""How many threads a step computes with, by a clock that stands still."""

from __future__ import annotations

import os

import pytest

from afina.domain.clock import ManualClock
from afina.serving.engine import Engine
from afina.serving.threads import FIRST_PAUSE_S, LONGEST_PAUSE_S, Clocks, Threads


class Machine:
    """Cores of which the engine gets a share."""

    def __init__(self, fixed: int = 0) -> None:
        self.clock = ManualClock()
        self.processor = 0.0
        self.threads = Threads(2, fixed, Clocks(self.clock.monotonic, lambda: self.processor))

    def step(self, share: float, seconds: float = 0.06) -> int:
        """One step, in which the engine gets `share` of what its threads could burn."""
        threads = self.threads.wanted()
        self.threads.begin()
        self.clock.advance(seconds)
        self.processor += share * threads * seconds
        self.threads.end(threads)
        return threads

    def steps_until(self, threads: int, share: float) -> float:
        """Seconds until a step is computed with `threads`."""
        begun = self.clock.monotonic()
        while self.step(share) != threads:
            pass
        return self.clock.monotonic() - begun


def test_one_thread_computes_while_a_trainer_lives() -> None:
    clock = ManualClock()
    engine = Engine(lambda deliveries: None, clock=clock)
    cores = len(os.sched_getaffinity(0))
    assert engine.threads.wanted() == cores
    engine.threads.set_trainers(1, ttl_s=30)
    assert engine.threads.wanted() == 1
    clock.advance(31)
    assert engine.threads.wanted() == cores
    engine.threads.set_trainers(1, ttl_s=30)
    engine.threads.set_trainers(0, ttl_s=30)
    assert engine.threads.wanted() == cores
    assert Engine(lambda deliveries: None, threads=3, clock=clock).threads.wanted() == 3


def test_alone_all_cores_compute_at_every_step() -> None:
    machine = Machine()
    assert {machine.step(0.97) for _ in range(200)} == {2}


def test_where_another_process_computes_one_thread_is_left_within_two_steps() -> None:
    machine = Machine()
    assert [machine.step(0.66) for _ in range(3)] == [2, 2, 1]
    assert machine.threads.is_crowded


def test_all_cores_are_tried_again_and_kept_when_the_others_are_gone() -> None:
    machine = Machine()
    machine.steps_until(1, 0.6)
    waited = machine.steps_until(2, 1.0)
    assert FIRST_PAUSE_S - 0.1 < waited < FIRST_PAUSE_S + 0.2
    assert {machine.step(1.0) for _ in range(50)} == {2}


def test_while_the_others_stay_all_cores_are_tried_less_and_less_often() -> None:
    machine = Machine()
    tried = []
    for _ in range(400):
        machine.steps_until(1, 0.5)
        tried.append(machine.steps_until(2, 0.5))
        if len(tried) > 8:
            break
    assert tried == sorted(tried)
    assert abs(tried[-1] - LONGEST_PAUSE_S) < 0.2


def test_what_the_settings_name_is_not_changed() -> None:
    machine = Machine(fixed=2)
    assert {machine.step(0.2) for _ in range(20)} == {2}


def test_beside_a_trainer_what_nobody_waits_for_takes_a_third_of_one_core() -> None:
    machine = Machine()
    machine.step(1.0, seconds=0.06)
    assert machine.threads.rest_s(front=False) == 0
    machine.threads.set_trainers(1, ttl_s=30)
    machine.step(1.0, seconds=0.06)
    assert machine.threads.rest_s(front=False) == pytest.approx(0.12)
    assert machine.threads.rest_s(front=True) == 0
