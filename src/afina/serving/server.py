"""The engine's door: requests from the socket to lanes, deliveries from lanes to the socket.

Runs on the event loop; the lanes' state belongs to the engine's thread, which is only ever posted
to. A request passes the door (limits, base, adapter, context), then waits in its lane's queue; the
answer's head is sent with the first delivery, so a refusal still has its HTTP status. A client
that hangs up is taken back at the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.errors import (
    AfinaError,
    EngineFailed,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unavailable,
)
from afina.model.base import DTYPES
from afina.serving.engine import Engine, Fault
from afina.serving.failures import refuse, status_of
from afina.serving.heartbeat import StepWatch
from afina.serving.holdings import Held, Holdings
from afina.serving.journal import Journal
from afina.serving.lane import Delivery, Lane, Ticket
from afina.serving.library import Library, encoder_precision
from afina.serving.listener import Exchange
from afina.serving.metrics import resident_bytes
from afina.serving.networks import Networks
from afina.serving.protocol import (
    EngineHealth,
    Failure,
    Forget,
    Generate,
    Score,
    Trainers,
    encode_line,
)
from afina.serving.tickets import generate_ticket, score_ticket
from afina.serving.vllm.backend import VllmBackend
from afina.settings import Settings

T = TypeVar("T")
_LOG = structlog.get_logger(__name__)
_LAST_WORDS_S = 1.0
"""What requests at vLLM have to say that they are ended."""


@dataclass(eq=False)
class _Visit:
    """A request between its arrival and its end."""

    exchange: Exchange
    arrived: float = 0.0
    task: asyncio.Task[None] | None = None
    lane: Lane | None = None
    held: Held = field(default_factory=Held)
    started: bool = False


class Door:
    """Handles the exchanges of one engine."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings.engine
        self._clock = clock
        self._journal = Journal(settings.journal)
        self._library = Library(settings, self._journal, clock)
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(self._from_engine, settings.engine.threads, clock)
        self._engine.on_fault = self._faulted
        self._holdings = Holdings(settings.engine, self._library, self._engine)
        dtype = DTYPES[encoder_precision(settings)]
        self._vllm = self._make_vllm(settings)
        self._forgetting: asyncio.Future[None] | None = None
        self._networks = Networks(settings, self._engine.call, self._holdings.once, dtype)
        self._visits: dict[str, _Visit] = {}
        self._scores = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self.fault: asyncio.Future[Fault] = self._loop.create_future()
        self._engine.start()
        self._watch = StepWatch(
            lambda: self._engine.turn,
            self._engine.processor_clock(),
            settings.engine.hung_after_s,
            clock,
        )
        self.hung: asyncio.Future[str] = self._loop.create_future()
        """Why the step loop will not come back: nothing may wait for it any more."""

    def _make_vllm(self, settings: Settings) -> VllmBackend | None:
        vllm = settings.engine.vllm
        if vllm is None:
            return None
        in_thread = partial(self._loop.run_in_executor, self._holdings.loader)
        return VllmBackend(settings, vllm, self._library, self._clock, in_thread)

    def handle(self, exchange: Exchange) -> None:
        """Takes one exchange; answers now or later."""
        try:
            match exchange.method, exchange.path:
                case "POST", "/generate":
                    request = _decoded(exchange.body, Generate)
                    self._visit(exchange, request.request_id, lambda v: self._generate(v, request))
                case "POST", "/score":
                    score = _decoded(exchange.body, Score)
                    self._scores += 1
                    name = score.request_id or f"score-{self._scores}"
                    self._visit(exchange, name, lambda v: self._score(v, name, score))
                case "POST", "/moderate":
                    self._networks.moderate(exchange)
                case "POST", "/embed":
                    self._networks.embed(exchange)
                case "GET", "/metrics":
                    exchange.answer(200, self._metrics())
                case "GET", "/health":
                    exchange.answer(200, msgspec.json.encode(self._health()))
                case "POST", "/trainers":
                    trainers = _decoded(exchange.body, Trainers)
                    self._engine.threads.set_trainers(trainers.count, trainers.ttl_s)
                    exchange.answer(200, b"{}")
                case "POST", "/forget":
                    self._forget(exchange, _decoded(exchange.body, Forget).adapter)
                case _:
                    raise NotFound(f"The engine has no {exchange.method} {exchange.path}.")
        except AfinaError as error:
            refuse(exchange, error)

    async def drain(self, limit_s: float) -> None:
        """Refuses new requests and waits for those that are alive, for `limit_s` at most."""
        self.draining = True
        await self._emptied(limit_s)
        if self._visits and not self.fault.done():
            error = Unavailable("The engine is stopping.", remedy="Ask again in a moment.")
            if self._vllm is not None:
                self._vllm.fail_all(error)
                await self._emptied(_LAST_WORDS_S)
            for lane in self._holdings.lanes:
                self._engine.call(partial(self._fail_all, lane, error))
        self._networks.close()
        self._engine.stop()
        await asyncio.sleep(0)
        self._holdings.loader.shutdown(wait=False, cancel_futures=True)
        self._journal.close()

    async def _emptied(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()

    def _fail_all(self, lane: Lane, error: AfinaError) -> None:
        """Called in the engine's thread."""
        self._from_engine(lane.fail_all(error))

    async def preload(self, base_id: str) -> None:
        """Loads a base before anybody asks for it, unless it is vLLM's."""
        try:
            if self._vllm is not None and await self._vllm.find(base_id) is not None:
                return
        except AfinaError as error:
            _LOG.warning("engine.vllm_away", base=base_id, reason=error.message)
            return
        await self._holdings.lane(base_id)

    async def tidy(self, every_s: float) -> None:
        """Lets go of idle adapters, again and again."""
        while True:
            if self._vllm is not None:
                await self._vllm.tidy()
            await asyncio.sleep(every_s)
            self._holdings.tidy(self._settings.adapter_idle_s)

    def look(self) -> None:
        """Looks after the step loop. If it is hung, everybody is told, and so is `hung`."""
        wrong = self._watch.look()
        if wrong is None or self.hung.done():
            return
        _LOG.error("engine.hung", reason=wrong, where=self._engine.place)
        told = EngineFailed(
            "The engine stood still and broke off this answer.",
            remedy="Ask again in a moment: the engine is started again by itself.",
            retry_after_s=5.0,
        )
        self.hung.set_result(wrong)
        for visit in self._visits.values():
            refuse(visit.exchange, told)
        self._networks.close()

    # -- a visit -------------------------------------------------------------------------------

    def _visit(
        self, exchange: Exchange, name: str, serve: Callable[[_Visit], Awaitable[None]]
    ) -> None:
        if self.draining or self.fault.done() or self.hung.done():
            raise Unavailable(
                "The engine is stopping.", remedy="Ask again in a moment.", retry_after_s=5.0
            )
        if name in self._visits:
            raise InvalidRequest("A request of this id is alive already.", param="request_id")
        if len(self._visits) >= self._settings.max_queue + self._settings.max_batch:
            raise Overloaded(
                f"The engine's queue is full: {len(self._visits)} requests are alive.",
                remedy="Ask again later, or raise AFINA_ENGINE__MAX_QUEUE.",
                retry_after_s=1.0,
            )
        visit = self._visits[name] = _Visit(exchange, self._clock.monotonic())
        self._empty.clear()
        visit.task = asyncio.ensure_future(self._serve(name, visit, serve))
        exchange.on_gone = lambda: self._gone(name, visit)

    async def _serve(
        self, name: str, visit: _Visit, serve: Callable[[_Visit], Awaitable[None]]
    ) -> None:
        try:
            await serve(visit)
        except asyncio.CancelledError:
            self._end(name)
        except AfinaError as error:
            self._end(name)
            refuse(visit.exchange, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours; its text may hold a user's
            _LOG.error("engine.request_failed", error=type(error).__name__)
            self._end(name)
            refuse(visit.exchange, Internal("The engine could not start this request."))

    def _gone(self, name: str, visit: _Visit) -> None:
        if visit.lane is not None:
            lane = visit.lane
            self._engine.call(lambda: lane.cancel(name))
            self._end(name)
        elif visit.task is not None:
            visit.task.cancel()

    def _end(self, name: str) -> None:
        visit = self._visits.pop(name, None)
        if visit is not None:
            self._holdings.leave(visit.held)
        if not self._visits:
            self._empty.set()

    async def _generate(self, visit: _Visit, request: Generate) -> None:
        if self._vllm is not None:
            base = await self._vllm.find(request.base)
            if base is not None:
                await self._vllm.generate(visit.exchange, base, request, visit.arrived)
                self._end(request.request_id)
                return
        lane = await self._holdings.lane_of(visit.held, request.base, request.adapter)
        ticket = await self._ticket(request, lane)
        ticket.arrived = visit.arrived
        await self._holdings.take_tune(visit.held, lane, ticket)
        self._submit(visit, lane, ticket)

    async def _ticket(self, request: Generate, lane: Lane) -> Ticket:
        """Grammars take milliseconds, at worst a second: they are compiled beside the loop."""
        if request.grammar is None:
            return generate_ticket(request, lane)
        return await self._loop.run_in_executor(
            self._holdings.loader, generate_ticket, request, lane
        )

    async def _score(self, visit: _Visit, name: str, request: Score) -> None:
        if self._vllm is not None:
            base = await self._vllm.find(request.base)
            if base is not None:
                await self._vllm.score(visit.exchange, base, request)
                self._end(name)
                return
        lane = await self._holdings.lane_of(visit.held, request.base, request.adapter)
        ticket = score_ticket(name, request, lane)
        await self._holdings.take_tune(visit.held, lane, ticket)
        self._submit(visit, lane, ticket)

    def _submit(self, visit: _Visit, lane: Lane, ticket: Ticket) -> None:
        visit.lane = lane
        self._engine.call(lambda: self._from_engine([lane.submit(ticket)]))

    # -- deliveries ----------------------------------------------------------------------------

    def _from_engine(self, deliveries: list[Delivery]) -> None:
        """Called in the engine's thread."""
        if deliveries:
            self._loop.call_soon_threadsafe(self._deliver, deliveries)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            visit = self._visits.get(delivery.request_id)
            if visit is None:
                continue
            first = delivery.lines[0] if delivery.lines else None
            if isinstance(first, Failure) and not visit.started:
                visit.exchange.answer(status_of(first), msgspec.json.encode(first))
            elif first is not None:
                if not visit.started:
                    visit.started = True
                    visit.exchange.start()
                visit.exchange.write(b"".join(encode_line(line) for line in delivery.lines))
                if delivery.ended:
                    visit.exchange.finish()
            if delivery.ended:
                self._end(delivery.request_id)

    def _faulted(self, fault: Fault) -> None:
        """Called in the engine's thread."""
        self._loop.call_soon_threadsafe(
            lambda: None if self.fault.done() else self.fault.set_result(fault)
        )

    def _forget(self, exchange: Exchange, sha256: str) -> None:
        if self._vllm is not None:
            self._forgetting = asyncio.ensure_future(self._vllm.forget(sha256))
        self._holdings.forget(sha256, lambda: exchange.answer(200, b"{}"))

    def _metrics(self) -> bytes:
        elsewhere = [] if self._vllm is None else self._vllm.standing()
        return self._library.metrics.render(self._holdings.lanes, elsewhere)

    def _health(self) -> EngineHealth:
        lanes = self._holdings.lanes
        running = sum(len(lane.scheduler.running) for lane in lanes)
        bases, adapters = self._holdings.bases, self._holdings.tunes
        if self._vllm is not None:
            running += self._vllm.running
            bases += self._vllm.bases
            adapters += self._vllm.adapters
        alive = len(self._visits)
        return EngineHealth(
            status="draining" if self.draining else "ok",
            running=running,
            waiting=max(0, alive - running),
            bases=sorted(set(bases)),
            adapters=sorted(set(adapters)),
            precision=self._library.weights(self._holdings.lanes),
            elsewhere={} if self._vllm is None else self._vllm.elsewhere,
            step_s=round(self._watch.step_s, 1),
            memory={
                "resident": resident_bytes(),
                "weights": sum(lane.runner.layers.size for lane in lanes),
                "caches": sum(lane.runner.cache_bytes for lane in lanes),
                "adapters": sum(lane.runner.adapter_bytes for lane in lanes),
            },
        )


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request to the engine is wrong: {error}.") from None
