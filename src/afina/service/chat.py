"""Chat completions: from a request to the engine's answer in the wire's shapes.

`prepare` is plain and may take milliseconds (a look-up, the template, the tokenizer), so callers
with an event loop run it in a thread. `complete` and `stream` wait for the engine. `answer` does
all of it for callers without a stream. Leaving any of them early takes the request back from the
engine at once. HTTP is not known here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.errors import EngineFailed, InvalidRequest
from afina.service.asking import Asker, Engine
from afina.service.chat_answer import AnswerHead, Chunks, WholeAnswer
from afina.service.chat_request import ChatRequest, question
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.service.stored import keep_completion
from afina.service.tool_request import FunctionTool
from afina.serving.protocol import Final, Generate


@dataclass(frozen=True)
class Prepared:
    """A request that is ready for the engine, and how its answer will look."""

    generate: Generate
    head: AnswerHead
    stream: bool = False
    include_usage: bool = False
    obfuscate: bool = False
    caller: Caller | None = None
    """Whose copy of the answer is kept; None where none is."""
    asked: dict[str, Any] | None = None
    """The request as it was written, for the copy."""


class ChatService:
    """Answers chat requests."""

    def __init__(self, platform: Platform, engine: Engine) -> None:
        self._platform = platform
        self._asker = Asker(platform, engine)

    def prepare(self, caller: Caller, request: ChatRequest, request_id: str) -> Prepared:
        """Resolves, renders and checks. Raises UnsupportedField, ModelNotFound, ContextTooLong,
        InvalidRequest. `request_id` names the usage in the ledger and must be unique."""
        asked = self._asker.ask(caller, question(request), request_id)
        options = request.stream_options
        return Prepared(
            generate=asked.generate,
            head=AnswerHead(
                id=self._platform.ids.new(ids.CHAT),
                created=self._platform.now(),
                model=asked.model.name,
                fingerprint=asked.model.fingerprint,
                n=asked.generate.n,
                logprobs=bool(request.logprobs),
                syntax=asked.syntax,
                functions=request.functions is not None,
                metadata=(request.metadata or {}) if request.store else None,
                source=self._platform.ids,
            ),
            stream=bool(request.stream),
            include_usage=options is not None and bool(options.include_usage),
            obfuscate=options is not None and bool(options.include_obfuscation),
            caller=caller if request.store else None,
            asked=_written(request) if request.store else None,
        )

    async def answer(self, caller: Caller, body: object, request_id: str) -> bytes:
        """The whole answer to a request's JSON. Raises what `prepare` and the engine say."""
        request = parse(ChatRequest, body)
        if request.stream:
            raise InvalidRequest(
                "'stream' is only possible in a request of its own.",
                param="stream",
                code="invalid_value",
            )
        return await self.complete(
            await to_thread.run_sync(self.prepare, caller, request, request_id)
        )

    async def complete(self, prepared: Prepared) -> bytes:
        """The whole answer as JSON. Raises what the engine says."""
        answer = WholeAnswer(prepared.head)
        async with aclosing(self._asker.lines(prepared.generate)) as lines:
            async for line in lines:
                if isinstance(line, Final):
                    await self._keep(prepared, answer, line)
                    return answer.finish(line)
                answer.add(line)
        raise EngineFailed("The engine's answer ended without its final line; it is not whole.")

    async def stream(self, prepared: Prepared) -> AsyncGenerator[bytes]:
        """The answer as server-sent events. What the engine refuses is raised before the first
        event; what goes wrong later is raised in the middle, and the caller ends the stream."""
        padding = self._platform.ids if prepared.obfuscate else None
        kept = prepared.caller is not None
        chunks = Chunks(prepared.head, prepared.include_usage, padding, kept=kept)
        opening = chunks.roles()
        async with aclosing(self._asker.lines(prepared.generate)) as lines:
            async for line in lines:
                if isinstance(line, Final):
                    await self._keep(prepared, chunks.whole, line)
                    yield opening + chunks.totals(line)
                    return
                event = opening + chunks.delta(line)
                opening = b""
                if event:
                    yield event

    async def _keep(self, prepared: Prepared, answer: WholeAnswer, final: Final) -> None:
        """Keeps a copy where the request asked for one, before its last word is sent."""
        if prepared.caller is None or prepared.asked is None:
            return
        document = answer.document(final)
        await to_thread.run_sync(
            keep_completion, self._platform, prepared.caller, prepared.asked, document
        )


def _written(request: ChatRequest) -> dict[str, Any]:
    """The request as it came, tools to the letter."""
    written = request.model_dump(exclude_unset=True, by_alias=True)
    if request.tools:
        written["tools"] = [t.written for t in request.tools if isinstance(t, FunctionTool)]
    return written
