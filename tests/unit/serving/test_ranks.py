"""Requests that nobody waits for: they slow the others down by little, and never stand still."""

from __future__ import annotations

import itertools

from afina.serving.blocks import BlockAllocator
from afina.serving.ranks import EVERY
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Plan, Prompt, Sequence

LIMITS = Limits(max_batch=4, max_waiting=99, max_adapters=2, prefill_tokens=64, chunk_tokens=16)


class Steps:
    """A scheduler whose plans are carried out by nobody: every token is 7."""

    def __init__(self, blocks: int = 256) -> None:
        self.scheduler = Scheduler(BlockAllocator(blocks, 4), LIMITS)
        self.ended: list[str] = []
        self._names = itertools.count()

    def ask(
        self, tokens: int, *, background: bool, prompt: int = 4, adapter: str | None = None
    ) -> Prompt:
        name = f"{'background' if background else 'front'}-{next(self._names)}"
        asked = Prompt(name, list(range(10, 10 + prompt)), adapter, name, background)
        asked.sequences = [Sequence(asked, 0, tokens)]
        self.scheduler.submit(asked)
        return asked

    def step(self) -> Plan:
        plan = self.scheduler.plan()
        sampling = list(plan.decodes)
        for chunk in plan.chunks:
            self.scheduler.computed(chunk)
            sampling += [chunk.sequence] if chunk.ends_prompt else []
        for sequence in sampling:
            self.scheduler.sampled(sequence, 7)
            if len(sequence.tokens) == sequence.max_tokens:
                self.scheduler.finish(sequence)
                self.ended.append(sequence.prompt.request_id)
        return plan


def background_rows(plan: Plan) -> int:
    return sum(s.prompt.background for s in plan.decodes) + sum(
        c.sequence.prompt.background for c in plan.chunks
    )


def test_alone_the_background_computes_in_every_step() -> None:
    steps = Steps()
    for _ in range(3):
        steps.ask(20, background=True)
    steps.step()
    assert [background_rows(steps.step()) for _ in range(10)] == [3] * 10


def test_beside_others_the_background_computes_in_one_step_of_a_few() -> None:
    steps = Steps()
    for _ in range(3):
        steps.ask(400, background=True)
    steps.step()
    steps.ask(400, background=False)
    steps.step()
    told = [background_rows(steps.step()) for _ in range(5 * EVERY)]
    assert sum(bool(rows) for rows in told) == 5
    assert sum(told) == 15


def test_an_arrival_finds_a_place_though_the_background_fills_the_batch() -> None:
    steps = Steps()
    for _ in range(8):
        steps.ask(50, background=True)
    steps.step()
    assert len(steps.scheduler.running) == LIMITS.max_batch
    steps.ask(2, background=False)
    steps.step()
    steps.step()
    assert steps.ended == ["front-8"]


def test_an_arrival_finds_room_for_its_adapter_and_its_prompt() -> None:
    steps = Steps(blocks=24)
    for adapter in ("a", "b", "b"):
        steps.ask(30, background=True, prompt=12, adapter=adapter)
    steps.step()
    asked = steps.ask(1, background=False, prompt=48, adapter="c")
    for _ in range(4):
        steps.step()
    assert steps.ended == [asked.request_id]


def test_a_long_prompt_of_others_does_not_stop_the_prompts_of_the_background() -> None:
    steps = Steps()
    steps.ask(500, background=False, prompt=400)
    steps.step()
    steps.ask(1, background=True, prompt=30)
    for _ in range(3 * EVERY):
        steps.step()
    assert steps.ended == ["background-1"]


def test_a_stream_of_others_does_not_starve_the_background() -> None:
    steps = Steps()
    quiet = [steps.ask(5, background=True) for _ in range(2)]
    for _ in range(600):
        while steps.scheduler.waiting < 6:
            steps.ask(3, background=False)
        steps.step()
        if {p.request_id for p in quiet} <= set(steps.ended):
            return
    raise AssertionError("the background starves")
