"""Who computes in the next step. Plain Python over plain state: no tensors, no clock, no threads.

Every running answer decodes one token a step; beside them prompts are computed in chunks, within a
budget, in turns, so that neither a long prompt nor a full batch makes anyone wait for long.
Requests are admitted in the order of their arrival, in turns among namespaces. When blocks run
out, kept prompts are let go first and then the youngest sequence goes back to the queue: its
tokens stay, its cache is computed again. The oldest never gives way, so everybody ends.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from afina.errors import ContextTooLong, Overloaded
from afina.serving.blocks import BlockAllocator
from afina.serving.sequences import Chunk, Plan, Prompt, Sequence, State


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
    """Prompt positions of one sequence in one turn."""


class Scheduler:
    """The waiting queue, the running set and the blocks of one base model's cache."""

    def __init__(self, allocator: BlockAllocator, limits: Limits) -> None:
        self._blocks = allocator
        self._limits = limits
        self._prompts: dict[str, Prompt] = {}
        self._waiting: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self._running: list[Sequence] = []
        self._turns: deque[Sequence] = deque()
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """Requests of which nothing has started."""
        return sum(not prompt.started for prompt in self._prompts.values())

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a place in the batch, oldest first."""
        return self._running

    @property
    def is_idle(self) -> bool:
        return not self._prompts

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
        self._let_go_of_the_unneeded()
        self._plan_decodes(plan)
        self._admit(plan)
        self._plan_chunks(plan)
        return plan

    def computed(self, chunk: Chunk, first: object | None = None) -> None:
        """A chunk's keys and values are in the cache; `first` is kept for siblings."""
        sequence = chunk.sequence
        if sequence.state is not State.RUNNING:
            return
        sequence.computed = chunk.start + chunk.length
        if chunk.ends_prompt and len(sequence.prompt.sequences) > 1:
            self._keep_for_siblings(sequence, first)

    def sampled(self, sequence: Sequence, token: int) -> None:
        """The next token of a running sequence."""
        if sequence.tokens:
            sequence.computed += 1
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

    def _plan_decodes(self, plan: Plan) -> None:
        for sequence in list(self._running):
            if sequence.state is not State.RUNNING or not sequence.is_decoding:
                continue
            if self._blocks.blocks_for(sequence.computed + 1) > len(sequence.blocks) and (
                not self._make_room(1, sequence)
            ):
                continue
            missing = self._blocks.blocks_for(sequence.computed + 1) - len(sequence.blocks)
            sequence.blocks += self._blocks.take(missing)
            plan.decodes.append(sequence)
        # A younger one may have been planned before it had to make room for an older one.
        plan.decodes[:] = [s for s in plan.decodes if s.state is State.RUNNING]

    def _plan_chunks(self, plan: Plan) -> None:
        budget = self._limits.prefill_tokens
        for _ in range(len(self._turns)):
            if budget <= 0:
                return
            sequence = self._turns.popleft()
            length = min(self._limits.chunk_tokens, sequence.target - sequence.computed, budget)
            plan.chunks.append(Chunk(sequence, sequence.computed, length))
            budget -= length
            if sequence.computed + length < sequence.target:
                self._turns.append(sequence)

    def _admit(self, plan: Plan) -> None:
        while len(self._running) < self._limits.max_batch:
            sequence = self._next_waiting()
            if sequence is None or not self._adapter_fits(sequence):
                return
            needed = self._blocks.blocks_for(sequence.target + 1)
            shared = self._shareable(sequence)
            spare = len(self._running) if self._running else 0
            if self._blocks.free < needed - len(shared) + spare and (
                self._running or not self._drop_kept(needed)
            ):
                return
            self._start(sequence, plan)

    def _start(self, sequence: Sequence, plan: Plan) -> None:
        self._dequeue(sequence)
        prompt = sequence.prompt
        # Shareable blocks may have been let go to make room since they were counted.
        shared = self._shareable(sequence)
        self._blocks.share(shared)
        missing = self._blocks.blocks_for(sequence.target + 1) - len(shared)
        sequence.blocks = shared + self._blocks.take(missing)
        sequence.state = State.RUNNING
        prompt.started = True
        self._arrivals += 1
        sequence.arrival = sequence.arrival or self._arrivals
        self._running.append(sequence)
        self._running.sort(key=lambda s: s.arrival)
        if prompt.held and not sequence.tokens and sequence.choice > 0:
            if len(shared) < len(prompt.held):
                plan.copies.append((prompt.held[-1], sequence.blocks[len(shared)]))
            sequence.computed = len(prompt.ids)
            plan.forks.append(sequence)
        else:
            sequence.computed = 0
            self._turns.append(sequence)

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
        while self._blocks.free < blocks:
            if self._drop_kept(blocks):
                return True
            youngest = self._running[-1]
            self._send_back(youngest)
            if youngest is wanted_by:
                return False
        return True

    def _drop_kept(self, blocks: int) -> bool:
        for prompt in self._prompts.values():
            if self._blocks.free >= blocks:
                break
            if prompt.held:
                self._let_go(prompt)
        return self._blocks.free >= blocks

    def _send_back(self, sequence: Sequence) -> None:
        self._leave_batch(sequence)
        sequence.computed = 0
        self._enqueue(sequence, front=True)

    # -- queue and batch ---------------------------------------------------------------------

    def _enqueue(self, sequence: Sequence, *, front: bool) -> None:
        sequence.state = State.WAITING
        queue = self._waiting.setdefault(sequence.prompt.namespace, deque())
        if front:
            queue.appendleft(sequence)
        else:
            queue.append(sequence)

    def _next_waiting(self) -> Sequence | None:
        for queue in self._waiting.values():
            return queue[0]
        return None

    def _dequeue(self, sequence: Sequence) -> None:
        namespace = sequence.prompt.namespace
        queue = self._waiting[namespace]
        queue.remove(sequence)
        if queue:
            self._waiting.move_to_end(namespace)
        else:
            del self._waiting[namespace]

    def _adapter_fits(self, sequence: Sequence) -> bool:
        adapters = {s.prompt.adapter for s in self._running} | {sequence.prompt.adapter}
        return len(adapters - {None}) <= self._limits.max_adapters

    def _end(self, sequence: Sequence) -> None:
        if sequence.state is State.RUNNING:
            self._leave_batch(sequence)
        elif sequence.state is State.WAITING:
            self._dequeue(sequence)
        sequence.state = State.DONE

    def _leave_batch(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        if sequence in self._turns:
            self._turns.remove(sequence)
        self._blocks.release(sequence.blocks)
        sequence.blocks = []
