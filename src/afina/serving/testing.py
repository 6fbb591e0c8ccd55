"""An honest fake engine for tests: the real protocol over a real socket, with scripted answers.

It runs in a thread of its own, so tests with and without an event loop can use it:

    with ScriptedEngine(socket_path) as engine:
        engine.script = Script("To be, or not to be.")

It refuses nothing that the engine would refuse by itself; say so in a Script. It keeps what it
was asked (`requests`), who left early (`left`), and appends the usage journal if given one.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from afina.data.moderation.categories import CATEGORIES
from afina.domain.clock import SYSTEM_CLOCK
from afina.errors import AfinaError
from afina.serving.failures import status_of, to_failure
from afina.serving.journal import Journal
from afina.serving.listener import Exchange, listen
from afina.serving.metrics import EngineMetrics
from afina.serving.network_protocol import Moderate, Moderated
from afina.serving.protocol import (
    Delta,
    EngineHealth,
    Final,
    Forget,
    Generate,
    Score,
    Scored,
    TokenLogprob,
    TopLogprob,
    Trainers,
    UsageRecord,
    encode_line,
)


@dataclass(frozen=True)
class Script:
    """How the next answers go: the words of `text`, one delta each, then `finish`."""

    text: str = "Well met, good friend."
    finish: str = "stop"
    refusal: AfinaError | None = None
    """Refuse the request before it starts."""
    failure: AfinaError | None = None
    """End the stream with this failure instead of its final line."""
    cut_after: int | None = None
    """Hang up after so many deltas, without any final line."""
    hold: threading.Event | None = None
    """Wait for this after the first delta."""


class ScriptedEngine:
    """Serves the engine's protocol on a unix socket until the `with` block ends."""

    def __init__(self, socket_path: Path, journal: Path | None = None) -> None:
        self.socket_path = socket_path
        self.script: Script | Callable[[Generate], Script] = Script()
        self.scored: Callable[[Score], Scored] = _scored_evenly
        self.requests: list[Generate] = []
        self.scores: list[Score] = []
        self.trainers: list[Trainers] = []
        self.forgotten: list[str] = []
        self.left: list[str] = []
        """Ids of requests whose client went away early."""
        self.draining = False
        self.elsewhere: dict[str, str] = {}
        """Bases that a server behind the engine answers for."""
        self._journal = None if journal is None else Journal(journal)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ScriptedEngine:
        self._thread.start()
        self._ready.wait()
        if self._fault is not None:
            raise self._fault
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            self._fault = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await listen(self.socket_path, self._handle)
        self._ready.set()
        await self._stop.wait()
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await server.close()

    def _handle(self, exchange: Exchange) -> None:
        match exchange.path:
            case "/generate":
                self._start(exchange, msgspec.json.decode(exchange.body, type=Generate))
            case "/score":
                score = msgspec.json.decode(exchange.body, type=Score)
                self.scores.append(score)
                exchange.answer(200, msgspec.json.encode(self.scored(score)))
            case "/moderate":
                texts = msgspec.json.decode(exchange.body, type=Moderate).texts
                scores = [[0.0] * len(CATEGORIES) for _ in texts]
                told = Moderated("scripted", scores, [len(text.split()) for text in texts])
                exchange.answer(200, msgspec.json.encode(told))
            case "/health":
                exchange.answer(200, msgspec.json.encode(self._health()))
            case "/metrics":
                exchange.answer(200, EngineMetrics().render([]))
            case "/trainers":
                self.trainers.append(msgspec.json.decode(exchange.body, type=Trainers))
                exchange.answer(200, b"{}")
            case "/forget":
                self.forgotten.append(msgspec.json.decode(exchange.body, type=Forget).adapter)
                exchange.answer(200, b"{}")
            case _:
                exchange.answer(404, b"{}")

    def _start(self, exchange: Exchange, request: Generate) -> None:
        self.requests.append(request)
        script = self.script if isinstance(self.script, Script) else self.script(request)
        if script.refusal is not None:
            failure = to_failure(script.refusal)
            exchange.answer(status_of(failure), msgspec.json.encode(failure))
            return
        task = asyncio.ensure_future(self._answer(exchange, request, script))
        self._running[request.request_id] = task
        task.add_done_callback(lambda _: self._running.pop(request.request_id, None))
        exchange.on_gone = lambda: self._gone(request, task)

    def _gone(self, request: Generate, task: asyncio.Task[None]) -> None:
        self.left.append(request.request_id)
        task.cancel()
        self._note(request, 0, "left")

    async def _answer(self, exchange: Exchange, request: Generate, script: Script) -> None:
        exchange.start()
        words = script.text.split(" ")
        pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        pieces = pieces[: request.max_tokens]
        finish = script.finish if len(pieces) == len(words) else "length"
        sent = 0
        for position, piece in enumerate(pieces):
            last = position == len(pieces) - 1
            for choice in range(request.n):
                if sent == script.cut_after:
                    exchange.finish()
                    return
                delta = _delta(choice, piece, request.logprobs, finish if last else None)
                exchange.write(encode_line(delta))
                sent += 1
            while script.hold is not None and not script.hold.is_set():
                await asyncio.sleep(0.002)
            await asyncio.sleep(0)
        self._finish(exchange, request, script, sent)

    def _finish(self, exchange: Exchange, request: Generate, script: Script, sent: int) -> None:
        if script.failure is not None:
            self._note(request, sent, "failed")
            exchange.write(encode_line(to_failure(script.failure)))
        else:
            self._note(request, sent, "finished")
            exchange.write(encode_line(Final(len(request.prompt), 0, sent)))
        exchange.finish()

    def _note(self, request: Generate, completion_tokens: int, outcome: str) -> None:
        if self._journal is None:
            return
        self._journal.append(
            UsageRecord(
                request_id=request.request_id,
                time=SYSTEM_CLOCK.now(),
                base=request.base,
                adapter=request.adapter,
                prompt_tokens=len(request.prompt),
                cached_tokens=0,
                completion_tokens=completion_tokens,
                outcome=outcome,
                tag=request.tag,
            )
        )

    def _health(self) -> EngineHealth:
        return EngineHealth(
            status="draining" if self.draining else "ok",
            running=len(self._running),
            waiting=0,
            bases=sorted({r.base for r in self.requests}),
            adapters=sorted({r.adapter for r in self.requests if r.adapter}),
            precision="bf16",
            elsewhere=self.elsewhere,
        )


def _delta(choice: int, piece: str, logprobs: int | None, finish: str | None) -> Delta:
    token = zlib.crc32(piece.encode()) % 50_000
    told = []
    if logprobs is not None:
        raw = piece.encode().decode("latin-1")
        told = [TokenLogprob(token, raw, -0.25, [TopLogprob(token, raw, -0.25)][:logprobs])]
    return Delta(choice=choice, ids=[token], text=piece, logprobs=told, finish=finish)


def _scored_evenly(score: Score) -> Scored:
    return Scored(
        logprobs=[-0.25] * len(score.ids),
        top_ids=[[token] for token in score.ids],
        top_logprobs=[[-0.25] for _ in score.ids],
    )
