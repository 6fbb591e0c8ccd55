"""Who computes in the next step. Plain Python over plain state: no tensors, no clock, no threads.

Every running answer decodes one token a step; beside them prompts are computed in chunks, within a
budget, in turns, so that neither a long prompt nor a full batch makes anyone wait for long. Turns
go round among namespaces and then among models (afina.serving.turns), in the queue and among
prompts. What others computed of the same prefix is not computed again (afina.serving.prefixes).
When blocks run out, kept prefixes are let go first and then the youngest sequence goes back to the
queue: its tokens stay, its cache is computed again. The oldest never gives way, so everybody ends.
Sequences of the background give way before others, and others' arrivals make them (ranks).
"""

from __future__ import annotations

from dataclasses import dataclass

from afina.errors import ContextTooLong, Overloaded
from afina.serving.blocks import BlockAllocator
from afina.serving.kept_places import KeptPlaces
from afina.serving.prefixes import Branch, PrefixIndex
from afina.serving.ranks import Pace, Ranks
from afina.serving.sequences import Chunk, Plan, Prompt, Sequence, State
from afina.serving.turns import Turns

_LET_GO_TOGETHER = 16
"""Blocks of kept prefixes that are freed at once."""


@dataclass(frozen=True)
class Limits:
    """What one step and the queue may hold."""

    max_batch: int
    max_waiting: int
    max_adapters: int
    """Different adapters in one batch."""
    prefill_tokens: int = 256
    """Prompt positions a step, beside the decoding rows."""
    chunk_tokens: int = 64
    """Prompt positions of one sequence in one turn; a step may have several turns."""
    keep_prefixes: bool = True
    keep_answers: bool = True
    """Whether what was sampled is kept too, for the prompts that go on from it."""


class Scheduler:
    """The waiting queue, the running set and the blocks of one base model's cache."""

    def __init__(self, allocator: BlockAllocator, limits: Limits) -> None:
        self._blocks = allocator
        self._limits = limits
        self._prompts: dict[str, Prompt] = {}
        self.prefixes = PrefixIndex(allocator)
        self._kept = KeptPlaces(
            allocator, self.prefixes, prefixes=limits.keep_prefixes, answers=limits.keep_answers
        )
        self._waiting = Ranks()
        self._running: list[Sequence] = []
        self._prefilling = Ranks()
        self._pace = Pace()
        self._moved: set[Sequence] = set()
        """Those that came into the batch or left it in the plan that is being made."""
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """Requests of which nothing has started."""
        return sum(not prompt.started for prompt in self._prompts.values())

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody refers to."""
        return self._blocks.free

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a place in the batch, oldest first."""
        return self._running

    @property
    def is_idle(self) -> bool:
        return not self._prompts

    @property
    def has_front(self) -> bool:
        """Whether anybody waits for an answer from here."""
        return any(not prompt.background for prompt in self._prompts.values())

    def submit(self, prompt: Prompt) -> None:
        """Queues a request. Raises Overloaded or ContextTooLong and then holds nothing of it."""
        # Whoever finds a place free at the next step does not count as waiting.
        places = self._limits.max_batch - len(self._running)
        if self.waiting >= self._limits.max_waiting + max(0, places):
            raise Overloaded(
                f"The engine's queue is full: {self.waiting} requests are waiting.",
                remedy="Ask again later, or raise AFINA_ENGINE__MAX_QUEUE.",
                retry_after_s=1.0,
            )
        longest = max(s.max_tokens for s in prompt.sequences) + len(prompt.ids)
        capacity = self._blocks.total * self._blocks.block_tokens
        if self._blocks.blocks_for(longest) > self._blocks.total:
            raise ContextTooLong(
                f"Prompt and answer may take {longest} tokens, and the engine's cache holds "
                f"{capacity}.",
                remedy="Ask for fewer tokens, or raise AFINA_ENGINE__CACHE_TOKENS.",
            )
        self._prompts[prompt.request_id] = prompt
        first, *siblings = prompt.sequences
        for sibling in siblings:
            sibling.state = State.PENDING
        self._enqueue(first, front=False)

    def cancel(self, request_id: str) -> None:
        """Takes a request back at once. Unknown ids are ignored: it may just have ended."""
        prompt = self._prompts.get(request_id)
        if prompt is None:
            return
        for sequence in prompt.sequences:
            self._end(sequence)
        self._let_go(prompt)
        del self._prompts[request_id]

    def plan(self) -> Plan:
        """The next step. Blocks for all that it writes are taken when it returns."""
        plan = Plan()
        self._moved.clear()
        self._let_go_of_the_unneeded()
        front = any(not s.prompt.background for s in self._running)
        with_background = self._pace.next(front)
        self._plan_decodes(plan, with_background)
        self._admit(plan)
        # Whoever was planned may have had to make room since.
        plan.decodes[:] = [s for s in plan.decodes if s not in self._moved]
        self._plan_chunks(plan, with_background)
        return plan

    def computed(self, chunk: Chunk, first: object | None = None) -> None:
        """A chunk's keys and values are in the cache; `first` is kept for siblings."""
        sequence = chunk.sequence
        if sequence.state is not State.RUNNING:
            return
        sequence.computed = chunk.start + chunk.length
        self._kept.keep(sequence)
        if chunk.ends_prompt and len(sequence.prompt.sequences) > 1:
            self._keep_for_siblings(sequence, first)

    def check(self, plan: Plan, sequence: Sequence, draft: list[int]) -> bool:
        """Has a planned answer checked with a draft behind its last token; False and nothing
        changed where that would take blocks that are not free."""
        wanted = self._blocks.blocks_for(sequence.computed + 1 + len(draft))
        missing = max(0, wanted - len(sequence.blocks))
        if missing > self._blocks.free:
            return False
        sequence.blocks += self._blocks.take(missing)
        sequence.draft = draft
        plan.decodes.remove(sequence)
        plan.checks.append(sequence)
        return True

    def sampled(self, sequence: Sequence, token: int) -> None:
        """The next token of a running sequence."""
        if sequence.tokens:
            sequence.computed += 1
            if sequence.computed % self._blocks.block_tokens == 0:
                self._kept.keep(sequence)
        sequence.tokens.append(token)

    def finish(self, sequence: Sequence) -> bool:
        """Ends one answer; True if its whole request has ended."""
        self._end(sequence)
        prompt = sequence.prompt
        if not prompt.is_done:
            return False
        self._let_go(prompt)
        self._prompts.pop(prompt.request_id, None)
        return True

    # -- a step's parts ----------------------------------------------------------------------

    def _plan_decodes(self, plan: Plan, with_background: bool) -> None:
        for sequence in list(self._running):
            if sequence.state is not State.RUNNING or not sequence.is_decoding:
                continue
            if sequence.prompt.background and not with_background:
                continue
            if self._blocks.blocks_for(sequence.computed + 1) > len(sequence.blocks) and (
                not self._make_room(1, sequence)
            ):
                continue
            missing = self._blocks.blocks_for(sequence.computed + 1) - len(sequence.blocks)
            sequence.blocks += self._blocks.take(missing)
            plan.decodes.append(sequence)

    def _plan_chunks(self, plan: Plan, with_background: bool) -> None:
        budget = self._limits.prefill_tokens
        given: dict[Sequence, int] = {}
        put_off: list[Sequence] = []
        if with_background:
            # One turn at least, whatever others have to compute.
            first = min(budget, self._limits.chunk_tokens)
            budget -= self._give(self._prefilling.background, first, given, put_off)
        budget -= self._give(self._prefilling.front, budget, given, put_off)
        if with_background:
            self._give(self._prefilling.background, budget, given, put_off)
        for sequence in reversed(put_off):
            self._prefilling.add(sequence, front=True)
        plan.chunks.extend(Chunk(s, s.computed, n) for s, n in given.items() if n)

    def _give(
        self, turns: Turns, budget: int, given: dict[Sequence, int], put_off: list[Sequence]
    ) -> int:
        """Gives prompts their turns, `budget` positions at most; how many were given."""
        left = budget
        while left > 0 and (sequence := turns.next()) is not None:
            if sequence not in given:
                self._kept.take_over(sequence)
                if any(self._kept.is_worth_waiting(sequence, other) for other in given):
                    turns.remove(sequence)
                    put_off.append(sequence)
                    continue
            missing = sequence.target - sequence.computed - given.get(sequence, 0)
            length = min(self._limits.chunk_tokens, missing, left)
            given[sequence] = given.get(sequence, 0) + length
            left -= length
            if length == missing:
                turns.remove(sequence)
            else:
                turns.served(sequence)
        return budget - left

    def _admit(self, plan: Plan) -> None:
        while (sequence := self._next_to_start()) is not None:
            if not self._start(sequence, plan):
                return

    def _next_to_start(self) -> Sequence | None:
        for sequence in self._waiting.heads():
            if sequence in self._moved:
                continue
            if self._fits(sequence, self._running):
                return sequence
            if sequence.prompt.background or not self._fits(sequence, self._staying()):
                continue
            while not self._fits(sequence, self._running):
                self._background_gives_way(sequence)
            return sequence
        return None

    def _fits(self, sequence: Sequence, running: list[Sequence]) -> bool:
        """Whether beside `running` there is a place in the batch, and for its adapter."""
        if len(running) >= self._limits.max_batch:
            return False
        adapters = {s.prompt.adapter for s in running} | {sequence.prompt.adapter}
        return len(adapters - {None}) <= self._limits.max_adapters

    def _background_gives_way(self, wanted_by: Sequence) -> bool:
        """Sends the youngest of the background back to the queue for one that somebody waits for;
        False if there is none."""
        staying = self._staying()
        if wanted_by.prompt.background or len(staying) == len(self._running):
            return False
        self._send_back(next(s for s in reversed(self._running) if s not in staying))
        return True

    def _staying(self) -> list[Sequence]:
        """Who gives way to nobody's arrival: others than the background, the oldest of all, and
        whoever has just come."""
        oldest = self._running[:1]
        return oldest + [
            s for s in self._running[1:] if not s.prompt.background or s in self._moved
        ]

    def _start(self, sequence: Sequence, plan: Plan) -> bool:
        """Brings a sequence into the batch; False if it must wait for blocks."""
        prompt = sequence.prompt
        found = self._kept.found(sequence)
        shared = [branch.block for branch in found] or self._shareable(sequence)
        self._blocks.share(shared)  # so that making room cannot take them
        missing = self._blocks.blocks_for(sequence.target + 1) - len(shared)
        is_fork = bool(prompt.held) and not sequence.tokens and sequence.choice > 0
        while not self._free_up(missing + len(self._running)):
            if not self._background_gives_way(sequence):
                self._blocks.release(shared)
                return False
        if is_fork and not prompt.held:
            self._blocks.release(shared)
            return False
        self._waiting.served(sequence)
        self._moved.add(sequence)
        sequence.blocks = shared + self._blocks.take(missing)
        sequence.state = State.RUNNING
        self._arrivals += 1
        sequence.arrival = sequence.arrival or self._arrivals
        self._running.append(sequence)
        self._running.sort(key=lambda s: s.arrival)
        sequence.computed = len(shared) * self._blocks.block_tokens
        if prompt.held and not sequence.tokens and sequence.choice > 0:
            if len(shared) < len(prompt.held):
                plan.copies.append((prompt.held[-1], sequence.blocks[len(shared)]))
            sequence.computed = len(prompt.ids)
            plan.forks.append(sequence)
        else:
            self._begin_prefill(sequence, found)
        prompt.started = True
        return True

    def _begin_prefill(self, sequence: Sequence, found: list[Branch]) -> None:
        self._kept.begin(sequence, found)
        if sequence.computed < sequence.target:
            self._prefilling.add(sequence)

    # -- siblings ----------------------------------------------------------------------------

    def _keep_for_siblings(self, leader: Sequence, first: object | None) -> None:
        prompt = leader.prompt
        siblings = [s for s in prompt.sequences if s.state is State.PENDING]
        if not siblings:
            return
        prompt.held = leader.blocks[: self._blocks.blocks_for(len(prompt.ids))]
        self._blocks.share(prompt.held)
        prompt.first = first
        for sibling in reversed(siblings):
            self._enqueue(sibling, front=True)

    def _shareable(self, sequence: Sequence) -> list[int]:
        """Whole blocks of the prompt that a sibling computed and that nobody will write to."""
        prompt = sequence.prompt
        if sequence.tokens or sequence.choice == 0 or not prompt.held:
            return []
        return prompt.held[: len(prompt.ids) // self._blocks.block_tokens]

    def _let_go_of_the_unneeded(self) -> None:
        # Here and not when the last sibling starts: that step still reads what was kept.
        for prompt in self._prompts.values():
            if prompt.held and not any(
                s.state is State.WAITING and not s.tokens for s in prompt.sequences
            ):
                self._let_go(prompt)

    def _let_go(self, prompt: Prompt) -> None:
        self._blocks.release(prompt.held)
        prompt.held = []
        prompt.first = None

    # -- making room -------------------------------------------------------------------------

    def _make_room(self, blocks: int, wanted_by: Sequence) -> bool:
        """Frees blocks; False if the one who wants them had to give way itself."""
        while not self._free_up(blocks):
            if self._drop_held():
                continue
            background = [s for s in self._running[1:] if s.prompt.background]
            youngest = (background or self._running)[-1]
            self._send_back(youngest)
            if youngest is wanted_by:
                return False
        return True

    def _free_up(self, blocks: int) -> bool:
        """Lets go of what is only kept, until `blocks` are free; False if there is too little.
        While nothing runs, prompts that are held for siblings count as only kept."""
        while self._blocks.free < blocks:
            wanted = max(blocks - self._blocks.free, _LET_GO_TOGETHER)
            if not self.prefixes.let_go(wanted) and (self._running or not self._drop_held()):
                return False
        return True

    def _drop_held(self) -> bool:
        for prompt in self._prompts.values():
            if prompt.held:
                self._let_go(prompt)
                return True
        return False

    def _send_back(self, sequence: Sequence) -> None:
        self._leave_batch(sequence)
        sequence.computed = 0
        self._moved.add(sequence)
        self._enqueue(sequence, front=True)

    # -- queue and batch ---------------------------------------------------------------------

    def _enqueue(self, sequence: Sequence, *, front: bool) -> None:
        sequence.state = State.WAITING
        self._waiting.add(sequence, front=front)

    def _end(self, sequence: Sequence) -> None:
        if sequence.state is State.RUNNING:
            self._leave_batch(sequence)
        elif sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        sequence.state = State.DONE

    def _leave_batch(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        if not sequence.is_decoding and sequence in self._prefilling:
            self._prefilling.remove(sequence)
        self._blocks.release(sequence.blocks)
        sequence.blocks = []
        sequence.branch = None
        sequence.kept = 0
