"""One base model at work: its scheduler, runner, adapters and the requests that are alive.

Used from the engine's thread alone. A step plans, runs, samples, and turns tokens into deliveries;
usage is in the journal before a request's last line is delivered. Every request that was accepted
ends here in exactly one last line, or in silence where its client went away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from afina.domain.clock import Clock
from afina.errors import AfinaError, EngineFailed
from afina.serving.adapters import Adapter
from afina.serving.answers import Answer, Candidates, ScoredAnswer
from afina.serving.failures import to_failure
from afina.serving.grammar import Grammars
from afina.serving.metrics import EngineMetrics
from afina.serving.penalties import Reshaping
from afina.serving.protocol import Delta, Failure, Final, Scored, UsageRecord
from afina.serving.runner import Runner, StepOutput
from afina.serving.sampling import Choosing, choose, logprobs
from afina.serving.scheduler import Scheduler
from afina.serving.sequences import Plan, Prompt, Sequence, State
from afina.serving.speculation import Checked, Speculation
from afina.text.tokenizer import ChatTokenizer

_STALLED_STEPS = 8


@dataclass(frozen=True)
class Delivery:
    """Lines for one request's client. `ended`: the last of them is the request's last."""

    request_id: str
    lines: list[Delta | Final | Scored | Failure]
    ended: bool = False


@dataclass(frozen=True)
class Manner:
    """How a request's tokens are chosen."""

    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top: int | None = None
    """How many candidates are told; None: not even the chosen one's log-probability."""
    forced: tuple[int, ...] | None = None
    reshapings: tuple[Reshaping, ...] = ()
    """By choice: biases, penalties, grammar; empty where the request asks for none."""

    @property
    def is_free(self) -> bool:
        """Whether a token depends on the logits, seed and place alone."""
        return self.forced is None and not self.reshapings

    def next(self, sequence: Sequence, ahead: int = 0) -> Choosing:
        """How the next token of `sequence` is chosen, or one further `ahead`."""
        position = len(sequence.tokens) + ahead
        return Choosing(
            seed=self.seed,
            choice=sequence.choice,
            position=position,
            temperature=self.temperature,
            top_p=self.top_p,
            forced=None if self.forced is None else self.forced[position],
            reshaping=self.reshapings[sequence.choice] if self.reshapings else None,
            tokens=sequence.tokens,
        )

    def fault(self, sequence: Sequence) -> str | None:
        """Why this answer cannot go on, though its network can."""
        return self.reshapings[sequence.choice].fault if self.reshapings else None


@dataclass(eq=False)
class Ticket:
    """A request on its way through a lane."""

    prompt: Prompt
    manner: Manner
    answer: Answer
    adapter: Adapter | None = None
    tag: dict[str, str] | None = None
    """Copied into the journal; None: not metered."""
    arrived: float | None = None
    """When it came, by the monotonic clock; None once its first token is there."""

    @property
    def request_id(self) -> str:
        return self.prompt.request_id


class Lane:
    """A base model that answers."""

    def __init__(
        self,
        base_id: str,
        runner: Runner,
        scheduler: Scheduler,
        tokenizer: ChatTokenizer,
        *,
        clock: Clock,
        meter: Callable[[UsageRecord], None],
    ) -> None:
        self.base_id = base_id
        self.tune: str | None = None
        """The tune whose own weights the lane computes with."""
        self.adapter: str | None = None
        """The adapter of those weights, in the bank for good: every request here uses it."""
        self.metrics: EngineMetrics | None = None
        """Where steps and first tokens are counted."""
        self.runner = runner
        self.scheduler = scheduler
        self.tokenizer = tokenizer
        self.speculation = Speculation()
        self.grammars = Grammars(tokenizer, runner.base.vocab_size)
        self._clock = clock
        self._meter = meter
        self._tickets: dict[str, Ticket] = {}
        self._stalled = 0

    @property
    def is_idle(self) -> bool:
        return not self._tickets

    @property
    def has_front(self) -> bool:
        """Whether anybody waits for an answer from here, not the background alone."""
        return self.scheduler.has_front

    def submit(self, ticket: Ticket) -> Delivery:
        """Takes a request in, or refuses it. The delivery of one taken in has no lines."""
        if self.adapter is not None:
            ticket.prompt.adapter = self.adapter
        try:
            self.scheduler.submit(ticket.prompt)
        except AfinaError as error:
            return Delivery(ticket.request_id, [to_failure(error)], ended=True)
        self._tickets[ticket.request_id] = ticket
        if ticket.adapter is not None:
            bank = self.runner.bank
            bank.refer(ticket.adapter.sha256, self._clock.monotonic())
            if bank.add(ticket.adapter, self._clock.monotonic()) and self.metrics is not None:
                self.metrics.loaded(self.base_id)
        return Delivery(ticket.request_id, [])

    def cancel(self, request_id: str) -> None:
        """The client went away: what it used is in the journal, then its places are free."""
        ticket = self._tickets.get(request_id)
        if ticket is None:
            return
        try:  # whoever sees the place free, from another thread too, finds the record
            self._close(ticket, "left")
        finally:
            self.scheduler.cancel(request_id)

    def step(self) -> list[Delivery]:
        """Computes one step of all that is alive here."""
        begun = self._clock.monotonic()
        plan = self.scheduler.plan()
        self._watch_for_stall(plan)
        self.speculation.propose(plan, self.scheduler, self._drafted_as)
        out = self.runner.run(plan)
        for chunk in plan.chunks:
            self.scheduler.computed(chunk, _kept_logits(out, chunk.sequence))
        if not out.sequences:
            return []
        tickets = [self._tickets[s.prompt.request_id] for s in out.sequences]
        choosing = [
            ticket.manner.next(sequence, ahead)
            for ticket, (sequence, ahead) in zip(tickets, _places(out.sequences), strict=True)
        ]
        tokens = choose(out.logits, choosing)
        standing, checked = self.speculation.judge(out.sequences, tokens)
        self._count(tickets, sum(standing), begun, checked)
        told = self._candidates(out, tickets, tokens)
        deliveries: dict[str, Delivery] = {}
        for i, sequence in enumerate(out.sequences):
            if not standing[i] or sequence.state is State.DONE:
                continue
            fault = tickets[i].manner.fault(sequence)
            if fault is not None or tickets[i].request_id not in self._tickets:
                self._fail(deliveries, tickets[i], fault)
                continue
            self.scheduler.sampled(sequence, tokens[i])
            delta = tickets[i].answer.take(sequence.choice, tokens[i], told.get(i))
            if delta is not None:
                self._deliver(deliveries, tickets[i], sequence, delta)
        return list(deliveries.values())

    def fail_all(self, error: AfinaError) -> list[Delivery]:
        """Ends every request here with a failure."""
        failed = [
            Delivery(ticket.request_id, [to_failure(error)], ended=True)
            for ticket in self._tickets.values()
        ]
        for ticket in list(self._tickets.values()):
            self._close(ticket, "failed")
        return failed

    def tidy(self, idle_s: float) -> None:
        """Lets go of adapters that nobody has used for `idle_s`."""
        self.runner.bank.drop_idle(self._clock.monotonic() - idle_s)
        if self.tune is None:
            self.speculation.keep_only(self.runner.bank.resident)

    def forget(self, sha256: str) -> None:
        """Lets go of an adapter, once the requests that use it have ended, and of the prompts that
        were computed with it."""
        self.runner.bank.forget(sha256)
        self.scheduler.prefixes.forget(sha256)
        self.speculation.forget(sha256)

    def _deliver(
        self, deliveries: dict[str, Delivery], ticket: Ticket, sequence: Sequence, delta: Delta
    ) -> None:
        given = deliveries.setdefault(ticket.request_id, Delivery(ticket.request_id, []))
        if not isinstance(ticket.answer, ScoredAnswer):
            given.lines.append(delta)
        if delta.finish is not None and self.scheduler.finish(sequence):
            self._close(ticket, "finished")
            lines = [*given.lines, _final(ticket)]
            deliveries[ticket.request_id] = Delivery(ticket.request_id, lines, ended=True)

    def _fail(self, deliveries: dict[str, Delivery], ticket: Ticket, fault: str | None) -> None:
        """Ends one request that cannot go on; its other choices end with it."""
        if fault is None or ticket.request_id not in self._tickets:
            return
        self.scheduler.cancel(ticket.request_id)
        self._close(ticket, "failed")
        given = deliveries.get(ticket.request_id)
        lines = [*(given.lines if given else ()), to_failure(EngineFailed(fault))]
        deliveries[ticket.request_id] = Delivery(ticket.request_id, lines, ended=True)

    def _candidates(
        self, out: StepOutput, tickets: list[Ticket], tokens: list[int]
    ) -> dict[int, Candidates]:
        wanted = [i for i, ticket in enumerate(tickets) if ticket.manner.top is not None]
        if not wanted:
            return {}
        tops = [tickets[i].manner.top or 0 for i in wanted]
        found = logprobs(out.logits, [tokens[i] for i in wanted], tops, wanted)
        return dict(zip(wanted, found, strict=True))

    def _drafted_as(self, sequence: Sequence) -> str | None:
        """The tune whose answers are a draft for this one, unless its tokens depend on more."""
        if not self._tickets[sequence.prompt.request_id].manner.is_free:
            return None
        return sequence.prompt.adapter or self.tune

    def _count(
        self, tickets: list[Ticket], tokens: int, begun: float, checked: list[Checked]
    ) -> None:
        if self.metrics is None:
            return
        now = self._clock.monotonic()
        self.metrics.stepped(self.base_id, tokens, now - begun)
        for check in checked:
            self.metrics.checked(self.base_id, check)
        for ticket in tickets:
            if ticket.arrived is not None:
                self.metrics.first_token(self.base_id, now - ticket.arrived)
                ticket.arrived = None

    def _close(self, ticket: Ticket, outcome: str) -> None:
        del self._tickets[ticket.request_id]
        if ticket.adapter is not None:
            self.runner.bank.release(ticket.adapter.sha256, self._clock.monotonic())
        if ticket.tag is None:
            return
        prompt_tokens = len(ticket.prompt.ids) if ticket.prompt.started else 0
        completion_tokens = ticket.answer.completion_tokens
        if isinstance(ticket.answer, ScoredAnswer):  # what was forced is nobody's completion
            prompt_tokens, completion_tokens = prompt_tokens + completion_tokens, 0
        self._meter(
            UsageRecord(
                request_id=ticket.request_id,
                time=self._clock.now(),
                base=self.base_id,
                adapter=ticket.prompt.adapter or self.tune,
                prompt_tokens=prompt_tokens,
                cached_tokens=ticket.prompt.cached,
                completion_tokens=completion_tokens,
                outcome=outcome,
                tag=ticket.tag,
            )
        )

    def _watch_for_stall(self, plan: Plan) -> None:
        self._stalled = self._stalled + 1 if plan.is_empty else 0
        if self._stalled > _STALLED_STEPS:
            raise RuntimeError("the scheduler plans nothing though requests wait")


def _final(ticket: Ticket) -> Final | Scored:
    final = ticket.answer.final()
    if isinstance(final, Final):
        final.cached_tokens = ticket.prompt.cached
    return final


def _places(sequences: list[Sequence]) -> Iterator[tuple[Sequence, int]]:
    """Each row's answer, and how far its token is ahead of the answer's next one."""
    before, ahead = None, 0
    for sequence in sequences:
        ahead = ahead + 1 if sequence is before else 0
        before = sequence
        yield sequence, ahead


def _kept_logits(out: StepOutput, sequence: Sequence) -> torch.Tensor | None:
    """The logits that siblings of `sequence` will sample from."""
    if len(sequence.prompt.sequences) == 1 or sequence not in out.sequences:
        return None
    return out.logits[out.sequences.index(sequence)].clone()
