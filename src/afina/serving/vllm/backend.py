"""A vLLM server behind the engine's door: it computes, the engine keeps every other promise.

The door hands over requests for the bases that the server answers for. Adapters are made from blobs
by hash and loaded there; prompts go as ids, answers come as ids and become text here; usage is in
the journal before the last line; a client that leaves closes the stream to vLLM, which frees its
place. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from afina.domain.clock import Clock
from afina.errors import AfinaError, Unavailable
from afina.outside_settings import VllmSettings
from afina.serving.line_stream import LineStream
from afina.serving.listener import Exchange
from afina.serving.metrics import Elsewhere
from afina.serving.protocol import (
    Delta,
    Generate,
    Score,
    UsageRecord,
    encode_line,
)
from afina.serving.protocol import Final as Last
from afina.serving.vllm.adapters import RemoteAdapters
from afina.serving.vllm.bases import ServedBase, ServedBases
from afina.serving.vllm.folders import AdapterFolders
from afina.serving.vllm.link import VllmLink
from afina.serving.vllm.scores import Opened, score
from afina.serving.vllm.streams import AnswerStream
from afina.serving.vllm.wire import COMPLETIONS, completion, refusal
from afina.settings import Settings

if TYPE_CHECKING:
    from afina.serving.library import Library

_TRIES: Final = 2
"""The second for an adapter that vLLM has forgotten."""


@dataclass(eq=False)
class _Run:
    """A request from its arrival to its end."""

    base: ServedBase
    request: Generate | Score
    task: asyncio.Task[Any]
    accepted: bool = False
    """Whether vLLM has taken it in."""
    computed: bool = False
    """Whether it has computed anything of it."""
    cached_tokens: int = 0
    completion_tokens: int = 0


class VllmBackend:
    """The requests of one engine that a vLLM server answers."""

    def __init__(
        self,
        settings: Settings,
        vllm: VllmSettings,
        library: Library,
        clock: Clock,
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._precision = vllm.precision
        self._metrics = library.metrics
        self._meter = library.meter
        self._clock = clock
        self._link = VllmLink(vllm)
        self._bases = ServedBases(
            vllm, self._link, clock, library.record, settings.models, in_thread
        )
        folders = AdapterFolders(settings.vllm_adapters, vllm.adapters_there, library.bare_adapter)
        self._adapters = RemoteAdapters(
            self._link, folders, clock, settings.engine.adapters_resident, in_thread
        )
        self._adapters.on_load = library.metrics.loaded
        self._idle_s = settings.engine.adapter_idle_s
        self._runs: set[_Run] = set()
        self._begun = False
        self._beginning = asyncio.Lock()
        self._stopping: AfinaError | None = None

    # -- what the door asks --------------------------------------------------------------------

    async def find(self, base_id: str) -> ServedBase | None:
        """The base as vLLM has it; None if this engine answers for it. Raises Unavailable."""
        found = await self._bases.find(base_id)
        if found is not None:
            await self._begin()
        return found

    async def generate(
        self, exchange: Exchange, base: ServedBase, request: Generate, arrived: float
    ) -> None:
        """Answers a request to its last line. Raises what refuses it or breaks it off, and
        CancelledError where its client has left."""
        base.bounds.check_generate(request)
        with self._run(base, request) as run:
            try:
                await self._generate(exchange, run, request, arrived)
            except AfinaError:
                self._note(run, "failed")
                raise

    async def score(self, exchange: Exchange, base: ServedBase, request: Score) -> None:
        """Answers with the scores of forced ids. Raises what refuses it."""
        base.bounds.check_score(request)
        with self._run(base, request) as run:

            def open_stream(asked: Generate, only: int | None) -> Opened:
                return self._answered(run, asked, only)

            found = await score(request, self._link, open_stream)
            run.computed = True
            found.precision, found.engine = self._precision, self._bases.engine
            self._note(run, "finished")
        exchange.answer(200, msgspec.json.encode(found))

    async def forget(self, sha256: str) -> None:
        """A tune is deleted: vLLM loses it as soon as nobody uses it."""
        await self._adapters.forget(sha256)

    async def tidy(self) -> None:
        """Looks whether the server is there, and what it has; unloads idle adapters."""
        with contextlib.suppress(AfinaError):
            await self._bases.look()
            await self._begin()
            self._adapters.listed(self._bases.cards, self._bases.asked_at)
            await self._adapters.tidy(self._idle_s)

    def fail_all(self, error: AfinaError) -> None:
        """Ends every request with a failure: the engine stops."""
        self._stopping = error
        for run in self._runs:
            run.task.cancel()

    # -- what it tells -------------------------------------------------------------------------

    @property
    def elsewhere(self) -> dict[str, str]:
        """The bases that the server answers for, and what it is."""
        return dict.fromkeys(self._bases.ids, f"{self._bases.engine} at {self._link.url}")

    @property
    def bases(self) -> list[str]:
        """The bases that can be answered for now."""
        return self._bases.ids if self._bases.is_reachable else []

    @property
    def adapters(self) -> list[str]:
        """Tunes that the server has now, by their manifests."""
        return self._adapters.resident if self._bases.is_reachable else []

    @property
    def running(self) -> int:
        """Requests that vLLM has taken in."""
        return sum(run.accepted for run in self._runs)

    def standing(self) -> list[Elsewhere]:
        """What stands there, for the metrics."""
        found = []
        for id in self._bases.ids:
            runs = [run for run in self._runs if run.base.base_id == id]
            running = sum(run.accepted for run in runs)
            found.append(Elsewhere(id, running, len(runs) - running, len(self.adapters)))
        return found

    # -- one request ---------------------------------------------------------------------------

    async def _generate(
        self, exchange: Exchange, run: _Run, request: Generate, arrived: float
    ) -> None:
        def send(deltas: Sequence[Delta]) -> None:
            if not exchange.begun:
                exchange.start()
                self._metrics.first_token(run.base.base_id, self._clock.monotonic() - arrived)
            exchange.write(b"".join(map(encode_line, deltas)))

        async with self._answered(run, request) as stream:
            answer = AnswerStream(self._link, stream, run.base, request)
            try:
                await answer.deltas(send)
                run.cached_tokens = await answer.cached_tokens()
            finally:
                run.computed = answer.has_begun
                run.completion_tokens = answer.completion_tokens
        self._note(run, "finished")
        last = Last(len(request.prompt), run.cached_tokens, run.completion_tokens)
        exchange.write(encode_line(last))
        exchange.finish()

    @contextlib.asynccontextmanager
    async def _answered(
        self, run: _Run, request: Generate, only: int | None = None
    ) -> AsyncIterator[LineStream]:
        """A stream that vLLM has begun to answer, closed with the block. Raises what refuses it."""
        for left in reversed(range(_TRIES)):
            async with self._named(run) as name:
                raw = msgspec.json.encode(completion(request, name, only))
                stream = await self._link.open(COMPLETIONS, raw)
                try:
                    if await self._link.head(stream) == 200:
                        run.accepted = True
                        yield stream
                        return
                    reply = await self._link.reply(stream)
                finally:
                    stream.close()
            if reply.status != 404 or request.adapter is None or not left:
                raise refusal(reply, request)
            self._adapters.lost(request.adapter)

    @contextlib.asynccontextmanager
    async def _named(self, run: _Run) -> AsyncIterator[str]:
        """What vLLM calls the model, loaded there as long as the block lasts."""
        adapter = run.request.adapter
        if adapter is None:
            yield run.base.name
            return
        async with self._adapters.using(run.base.base_id, adapter) as name:
            yield name

    @contextlib.contextmanager
    def _run(self, base: ServedBase, request: Generate | Score) -> Iterator[_Run]:
        task = asyncio.current_task()
        if task is None or self._stopping is not None:
            raise Unavailable("The engine is stopping.", remedy="Ask again in a moment.")
        run = _Run(base, request, task)
        self._runs.add(run)
        try:
            yield run
        except asyncio.CancelledError:
            self._note(run, "left" if self._stopping is None else "failed")
            if self._stopping is not None:
                raise self._stopping from None
            raise
        finally:
            self._runs.discard(run)

    async def _begin(self) -> None:
        """Once: what an earlier engine left at the server goes."""
        async with self._beginning:
            if not self._begun:
                await self._adapters.begin(self._bases.cards)
                self._begun = True

    def _note(self, run: _Run, outcome: str) -> None:
        """Meters a request that vLLM computed, or that was left; as the engine's lanes do."""
        request = run.request
        if isinstance(request, Score):
            if not request.request_id:
                return
            prompt_tokens = len(request.prompt) + len(request.ids)
        else:
            prompt_tokens = len(request.prompt)
        if not run.computed and outcome == "failed":
            return  # a refusal: nothing was computed
        self._meter(
            UsageRecord(
                request_id=request.request_id,
                time=self._clock.now(),
                base=run.base.base_id,
                adapter=request.adapter,
                prompt_tokens=prompt_tokens if run.computed else 0,
                cached_tokens=run.cached_tokens,
                completion_tokens=run.completion_tokens,
                outcome=outcome,
                tag=request.tag,
            )
        )
