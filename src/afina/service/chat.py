"""Chat completions: from a request to the engine's answer in the wire's shapes.

`prepare` is plain and may take milliseconds (a look-up, the template, the tokenizer), so callers
with an event loop run it in a thread. `complete` and `stream` wait for the engine. Leaving either
early takes the request back from the engine at once. HTTP is not known here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.models import BaseModel
from afina.errors import ContextTooLong, EngineFailed
from afina.service.chat_answer import AnswerHead, Chunks, WholeAnswer
from afina.service.chat_request import ChatRequest, plain_messages, refuse_unsupported
from afina.service.models import ResolvedModel, resolve_model
from afina.service.platform import Platform
from afina.service.usage import usage_tag
from afina.serving.protocol import Delta, Final, Generate
from afina.text.renderer import Renderer

SEED_SPAN = 2**63
"""Seeds are taken modulo this, so that negative ones are seeds too."""


class Engine(Protocol):
    """What is needed of the engine's client."""

    def generate(self, request: Generate) -> AsyncIterator[Delta | Final]: ...


@dataclass(frozen=True)
class Prepared:
    """A request that is ready for the engine, and how its answer will look."""

    generate: Generate
    head: AnswerHead
    stream: bool = False
    include_usage: bool = False
    obfuscate: bool = False


class ChatService:
    """Answers chat requests; keeps one renderer for each base."""

    def __init__(self, platform: Platform, engine: Engine) -> None:
        self._platform = platform
        self._engine = engine
        self._renderers: dict[tuple[str, str], Renderer] = {}
        self._lock = threading.Lock()

    def prepare(self, caller: Caller, request: ChatRequest, request_id: str) -> Prepared:
        """Resolves, renders and checks. Raises UnsupportedField, ModelNotFound, ContextTooLong,
        InvalidRequest. `request_id` names the usage in the ledger and must be unique."""
        refuse_unsupported(request)
        model = resolve_model(self._platform, caller, request.model)
        renderer = self._renderer(model.base)
        prompt = renderer.prompt(plain_messages(request))
        generate = Generate(
            request_id=request_id,
            base=model.base.id,
            adapter=model.adapter,
            prompt=prompt,
            max_tokens=_room(
                request, len(prompt), model.base.context_tokens or renderer.context_tokens
            ),
            seed=self._seed(request.seed),
            namespace=caller.project_id,
            n=request.n or 1,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            stop=request.stops,
            end_tokens=list(renderer.end_tokens),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            tag=_tag(caller, model, request),
        )
        options = request.stream_options
        return Prepared(
            generate=generate,
            head=AnswerHead(
                id=self._platform.ids.new(ids.CHAT),
                created=self._platform.now(),
                model=model.name,
                fingerprint=_fingerprint(model),
                n=generate.n,
                logprobs=bool(request.logprobs),
            ),
            stream=bool(request.stream),
            include_usage=options is not None and bool(options.include_usage),
            obfuscate=options is not None and bool(options.include_obfuscation),
        )

    async def complete(self, prepared: Prepared) -> bytes:
        """The whole answer as JSON. Raises what the engine says."""
        answer = WholeAnswer(prepared.head)
        async with aclosing(self._lines(prepared)) as lines:
            async for line in lines:
                if isinstance(line, Final):
                    return answer.finish(line)
                answer.add(line)
        raise _unfinished()

    async def stream(self, prepared: Prepared) -> AsyncGenerator[bytes]:
        """The answer as server-sent events. What the engine refuses is raised before the first
        event; what goes wrong later is raised in the middle, and the caller ends the stream."""
        padding = self._platform.ids if prepared.obfuscate else None
        chunks = Chunks(prepared.head, prepared.include_usage, padding)
        opening = chunks.roles()
        async with aclosing(self._lines(prepared)) as lines:
            async for line in lines:
                if isinstance(line, Final):
                    yield opening + chunks.totals(line)
                    return
                event = opening + chunks.delta(line)
                opening = b""
                if event:
                    yield event
        raise _unfinished()

    async def _lines(self, prepared: Prepared) -> AsyncGenerator[Delta | Final]:
        lines = self._engine.generate(prepared.generate)
        try:
            async for line in lines:
                yield line
        finally:
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()

    def _renderer(self, base: BaseModel) -> Renderer:
        key = (base.path, base.sha256)
        renderer = self._renderers.get(key)
        if renderer is None:
            with self._lock:
                renderer = self._renderers.get(key)
                if renderer is None:
                    renderer = self._renderers[key] = Renderer.load(Path(base.path))
        return renderer

    def _seed(self, given: int | None) -> int:
        return self._platform.ids.seed() if given is None else given % SEED_SPAN


def _room(request: ChatRequest, prompt_tokens: int, context_tokens: int) -> int:
    """How many tokens an answer may have: what was asked for, else all that is left."""
    asked = request.token_limit
    wanted = prompt_tokens + (1 if asked is None else asked)
    if wanted <= context_tokens:
        return context_tokens - prompt_tokens if asked is None else asked
    split = (
        "" if asked is None else f" ({prompt_tokens} in the messages, {asked} in the completion)"
    )
    raise ContextTooLong(
        f"This model's maximum context length is {context_tokens} tokens. However, your request "
        f"needs {wanted} tokens{split}. Please shorten the messages or the completion.",
        param="messages",
    )


def _tag(caller: Caller, model: ResolvedModel, request: ChatRequest) -> dict[str, str]:
    tag = usage_tag(caller, model.name)
    if request.user is not None:
        tag["user"] = request.user
    if request.safety_identifier is not None:
        tag["safety_identifier"] = request.safety_identifier
    return tag


def _fingerprint(model: ResolvedModel) -> str:
    """Changes whenever the weights that answer change."""
    text = f"{model.base.sha256}:{model.adapter or ''}"
    return "fp_" + hashlib.sha256(text.encode()).hexdigest()[:10]


def _unfinished() -> EngineFailed:
    return EngineFailed("The engine's answer ended without its final line; it is not whole.")
