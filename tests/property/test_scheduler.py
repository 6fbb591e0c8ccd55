"""Laws of scheduler and allocator under any mix of requests, departures and endings."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from afina.errors import ContextTooLong, Overloaded
from afina.serving.blocks import BlockAllocator, OutOfBlocks
from afina.serving.scheduler import Limits, Scheduler
from afina.serving.sequences import Plan, Prompt, Sequence, State

BLOCKS, BLOCK_TOKENS = 12, 4
LIMITS = Limits(max_batch=4, max_waiting=5, max_adapters=2, prefill_tokens=12, chunk_tokens=5)


def request(name: str, size: int, answers: list[int], adapter: str | None, space: str) -> Prompt:
    prompt = Prompt(name, list(range(1, size + 1)), adapter, space)
    prompt.sequences = [Sequence(prompt, i, n) for i, n in enumerate(answers)]
    return prompt


class Model:
    """A runner that remembers, for each block, which ids were written to its places."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], int] = {}

    def write(self, sequence: Sequence, position: int, id: int) -> None:
        self.cells[sequence.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS] = id

    def check(self, sequence: Sequence, positions: int) -> None:
        for position in range(positions):
            place = sequence.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS
            assert self.cells.get(place) == sequence.ids(position, position + 1)[0]


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.allocator = BlockAllocator(BLOCKS, BLOCK_TOKENS)
        self.scheduler = Scheduler(self.allocator, LIMITS)
        self.model = Model()
        self.alive: dict[str, Prompt] = {}
        self.ended: Counter[str] = Counter()
        self.count = 0

    @rule(
        size=st.integers(1, 40),
        answers=st.lists(st.integers(1, 9), min_size=1, max_size=5),
        adapter=st.sampled_from([None, "a", "b", "c"]),
        space=st.sampled_from(["x", "y"]),
        differs_at=st.integers(0, 40),
        background=st.booleans(),
    )
    def submit(
        self,
        size: int,
        answers: list[int],
        adapter: str | None,
        space: str,
        differs_at: int,
        background: bool,
    ) -> None:
        self.count += 1
        prompt = request(f"r{self.count}", size, answers, adapter, space)
        prompt.background = background
        # Prompts of one adapter and namespace begin alike up to somewhere; others never do.
        own = 1000 * (1 + ["a", "b", "c", None].index(adapter) + 4 * (space == "x"))
        shift = [0] * differs_at + [500] * size
        prompt.ids = [own + id + more for id, more in zip(prompt.ids, shift, strict=False)]
        before = self.allocator.free
        try:
            self.scheduler.submit(prompt)
        except (Overloaded, ContextTooLong):
            assert self.allocator.free == before
            return
        self.alive[prompt.request_id] = prompt

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        self.scheduler.cancel(name)
        del self.alive[name]

    @rule(adapter=st.sampled_from([None, "a", "b"]))
    def forget(self, adapter: str | None) -> None:
        self.scheduler.prefixes.forget(adapter)

    @rule(stop_early=st.booleans())
    def step(self, stop_early: bool) -> None:
        self.carry_out(self.scheduler.plan(), stop_early)

    def carry_out(self, plan: Plan, stop_early: bool = False) -> None:
        assert len(self.scheduler.running) <= LIMITS.max_batch
        adapters = {s.prompt.adapter for s in self.scheduler.running} - {None}
        assert len(adapters) <= LIMITS.max_adapters
        assert sum(c.length for c in plan.chunks) <= LIMITS.prefill_tokens
        for source, target in plan.copies:
            for offset in range(BLOCK_TOKENS):
                if (source, offset) in self.model.cells:
                    self.model.cells[target, offset] = self.model.cells[source, offset]
        sampling = list(plan.forks)
        for fork in plan.forks:
            assert fork.prompt.first == "logits"
            self.model.check(fork, len(fork.prompt.ids))
        for sequence in plan.decodes:
            position = sequence.computed
            # The leader may go on in the prompt's last block: siblings copy it and write over.
            own = self.allocator.references(sequence.blocks[position // BLOCK_TOKENS]) == 1
            assert own or position >= len(sequence.prompt.ids)
            self.model.write(sequence, position, sequence.tokens[-1])
            self.model.check(sequence, position + 1)
            sampling.append(sequence)
        for chunk in plan.chunks:
            for position in range(chunk.start, chunk.start + chunk.length):
                place = chunk.sequence.blocks[position // BLOCK_TOKENS]
                assert self.allocator.references(place) == 1
                self.model.write(
                    chunk.sequence, position, chunk.sequence.ids(position, position + 1)[0]
                )
            self.model.check(chunk.sequence, chunk.start + chunk.length)
            first = chunk.ends_prompt
            self.scheduler.computed(chunk, "logits" if first else None)
            if first:
                sampling.append(chunk.sequence)
        assert len({id(s) for s in sampling}) == len(sampling)
        for sequence in sampling:
            self.scheduler.sampled(sequence, 90_000 + len(sequence.tokens))
            full = len(sequence.tokens) >= sequence.max_tokens
            early = stop_early and sequence.choice == 0
            if (full or early) and self.scheduler.finish(sequence):
                self.ended[sequence.prompt.request_id] += 1
                del self.alive[sequence.prompt.request_id]

    @invariant()
    def blocks_are_counted_exactly(self) -> None:
        expected: Counter[int] = Counter(self.scheduler.prefixes)
        for prompt in self.alive.values():
            expected.update(prompt.held)
            for sequence in prompt.sequences:
                expected.update(sequence.blocks)
                assert (sequence.state is State.RUNNING) or not sequence.blocks
        for block in range(BLOCKS):
            assert self.allocator.references(block) == expected[block]
        assert self.allocator.free == BLOCKS - len(expected)

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert all(count == 1 for count in self.ended.values())

    def teardown(self) -> None:
        for _ in range(600):
            if not self.alive:
                break
            self.carry_out(self.scheduler.plan())
        assert not self.alive, "somebody starves"
        assert self.scheduler.is_idle
        self.scheduler.prefixes.let_go(BLOCKS)
        assert self.allocator.free == BLOCKS


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestScheduler = SchedulerMachine.TestCase


def test_a_block_is_never_freed_twice() -> None:
    allocator = BlockAllocator(4, 16)
    taken = allocator.take(2)
    allocator.share(taken)
    allocator.release(taken)
    assert allocator.free == 2
    allocator.release(taken)
    assert allocator.free == 4
    with pytest.raises(ValueError, match="already free"):
        allocator.release(taken)


def test_taking_too_many_takes_none() -> None:
    allocator = BlockAllocator(4, 16)
    with pytest.raises(OutOfBlocks):
        allocator.take(5)
    assert allocator.free == 4


def test_a_stream_of_short_requests_does_not_starve_a_long_one() -> None:
    scheduler = Scheduler(BlockAllocator(64, 4), LIMITS)
    long = request("long", 100, [2], None, "x")
    scheduler.submit(long)
    machine = SchedulerMachine()
    machine.scheduler = scheduler
    machine.allocator = scheduler._blocks
    machine.alive["long"] = long
    for step in range(60):
        short = request(f"s{step}", 3, [1], None, "y")
        try:
            scheduler.submit(short)
            machine.alive[short.request_id] = short
        except Overloaded:
            pass
        machine.carry_out(scheduler.plan())
        if "long" not in machine.alive:
            return
    raise AssertionError("the long prompt starves")


def test_an_adapter_may_be_forgotten_while_a_prompt_waits_for_its_prefix() -> None:
    scheduler = Scheduler(BlockAllocator(64, BLOCK_TOKENS), LIMITS)
    prompts = [request(name, 36, [3], "a", "x") for name in ("first", "second")]
    for prompt in prompts:
        scheduler.submit(prompt)
    (chunk,) = scheduler.plan().chunks
    assert (chunk.sequence.prompt, len(scheduler.running)) == (prompts[0], 2)
    scheduler.computed(chunk)
    # Who computed it goes, and what was kept of it: its blocks are anybody's now.
    scheduler.cancel("first")
    scheduler.prefixes.forget("a")
    (chunk,) = scheduler.plan().chunks
    assert (chunk.sequence.prompt, chunk.start) == (prompts[1], 0)
