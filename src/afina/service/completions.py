"""Plain completions: text goes in as it is, without a template, and is written on.

For base models, and for those tuned on rows of `{prompt, completion}`. Each prompt is a request of
its own to the engine; their answers come as they are ready. With `echo` and `logprobs` the prompt's
own tokens are scored by the engine too. `max_tokens: 0` computes one token that is neither shown
nor counted, or none at all where the prompt is scored anyhow, or leaves no place for one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from anyio import to_thread
from msgspec.structs import replace

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.errors import InvalidRequest
from afina.service.asking import Asker, Engine, refuse_enormous, room
from afina.service.completion_answer import (
    CompletionChoice,
    CompletionHead,
    Read,
    chunk,
    document,
    totals,
)
from afina.service.completion_request import CompletionRequest, refuse_unsupported, sampling
from afina.service.merging import merged
from afina.service.models import resolve_model
from afina.service.platform import Platform
from afina.service.refusals import parse
from afina.service.usage import PROMPT_PAID, UNSHOWN
from afina.serving.protocol import Delta, Final, Generate, Score, Scored
from afina.text.renderer import Renderer

_AT_ONCE = 16
"""Prompts of one request that the engine has at the same time."""


class Scorer(Protocol):
    """What is needed of the engine's client to score a prompt."""

    async def score(self, request: Score) -> Scored: ...


@dataclass(frozen=True)
class PreparedCompletion:
    """A request that is ready for the engine, prompt by prompt."""

    request: CompletionRequest
    head: CompletionHead
    generates: list[Generate]
    prompts: list[str]
    """The prompts as texts."""
    renderer: Renderer

    @property
    def stream(self) -> bool:
        return bool(self.request.stream)


class CompletionsService:
    """Answers plain completions."""

    def __init__(self, platform: Platform, engine: Engine, scorer: Scorer) -> None:
        self._platform = platform
        self._asker = Asker(platform, engine)
        self._scorer = scorer

    def prepare(
        self, caller: Caller, request: CompletionRequest, request_id: str
    ) -> PreparedCompletion:
        """Resolves, tokenises and checks. Raises UnsupportedField, ModelNotFound, ContextTooLong,
        InvalidRequest."""
        refuse_unsupported(request)
        model = resolve_model(self._platform, caller, request.model)
        renderer = self._asker.renderer(model)
        context = model.base.context_tokens or renderer.context_tokens
        how = sampling(request)
        for text in request.prompts:
            if isinstance(text, str):
                refuse_enormous(renderer, [text], context, "prompt")
        generates, texts = [], []
        for number, prompt in enumerate(request.prompts):
            tokens = renderer.plain_prompt(prompt) if isinstance(prompt, str) else prompt
            most = room(len(tokens), _to_write(request, tokens, context), context, "prompt")
            name = request_id if number == 0 else f"{request_id}-{number}"
            generate = self._asker.request(caller, model, how, name, (tokens, most))
            generate.end_tokens = list(renderer.end_tokens)
            if request.user is not None:
                generate.tag["user"] = request.user
            if request.token_limit == 0:
                generate.tag[UNSHOWN] = "1"
            generates.append(generate)
            texts.append(prompt if isinstance(prompt, str) else renderer.tokenizer.decode(tokens))
        self._asker.saw(generates[0], texts)
        head = CompletionHead(
            id=self._platform.ids.new(ids.COMPLETION),
            created=self._platform.now(),
            model=model.name,
            fingerprint=model.fingerprint,
        )
        return PreparedCompletion(request, head, generates, texts, renderer)

    def renderer(self, caller: Caller, name: str) -> Renderer:
        """What turns chats with the model into ids. Raises ModelNotFound."""
        return self._asker.renderer(resolve_model(self._platform, caller, name))

    async def answer(self, caller: Caller, body: object, request_id: str) -> bytes:
        """The whole answer to a request's JSON. Raises what `prepare` and the engine say."""
        request = parse(CompletionRequest, body)
        if request.stream:
            raise InvalidRequest(
                "'stream' is only possible in a request of its own.",
                param="stream",
                code="invalid_value",
            )
        prepared = await to_thread.run_sync(self.prepare, caller, request, request_id)
        return await self.complete(prepared)

    async def complete(self, prepared: PreparedCompletion) -> bytes:
        """The whole answer as JSON. Raises what the engine says."""
        choices = [await self._open(prepared, n) for n in range(len(prepared.generates))]
        finals: list[Final] = []
        async with aclosing(self._lines(prepared)) as lines:
            async for number, line in lines:
                if isinstance(line, Final):
                    finals.append(_counted(prepared.request, line))
                else:
                    choices[number][line.choice].take(line)
        best = [_best(group, prepared.request.n or 1) for group in choices]
        return document(prepared.head, [c for group in best for c in group], finals)

    async def stream(self, prepared: PreparedCompletion) -> AsyncGenerator[bytes]:
        """The answer as server-sent events, with the laws of `ChatService.stream`."""
        options = prepared.request.stream_options
        told = options is not None and bool(options.include_usage)
        padded = options is not None and bool(options.include_obfuscation)
        padding = self._platform.ids if padded else None
        count = prepared.request.n or 1
        choices = [await self._open(prepared, n) for n in range(len(prepared.generates))]
        finals: list[Final] = []
        async with aclosing(self._lines(prepared)) as lines:
            async for number, line in lines:
                if isinstance(line, Final):
                    finals.append(_counted(prepared.request, line))
                    continue
                piece = choices[number][line.choice].take(line)
                if piece is not None:
                    place = number * count + line.choice
                    yield chunk(prepared.head, place, piece, usage=told, padding=padding)
        yield totals(prepared.head, finals, told, padding)

    def _lines(self, prepared: PreparedCompletion) -> AsyncGenerator[tuple[int, Delta | Final]]:
        return merged(
            [
                self._asker.lines(generate) if generate.max_tokens else self._read(prepared, number)
                for number, generate in enumerate(prepared.generates)
            ],
            _AT_ONCE,
        )

    async def _read(
        self, prepared: PreparedCompletion, number: int
    ) -> AsyncGenerator[Delta | Final]:
        """The lines of a prompt behind which nothing is to be written."""
        if not _echoes_logprobs(prepared.request):
            await self._score(prepared, number)
        for choice in range(prepared.request.computed):
            yield Delta(choice, finish="length")
        yield Final(len(prepared.generates[number].prompt), 0, 0)

    async def _open(self, prepared: PreparedCompletion, number: int) -> list[CompletionChoice]:
        """The choices of one prompt, with the prompt's echo in them."""
        request = prepared.request
        opened = [
            CompletionChoice(request.logprobs, hidden=request.token_limit == 0)
            for _ in range(request.computed)
        ]
        if not request.echo:
            return opened
        told = await self._score(prepared, number) if _echoes_logprobs(request) else []
        for choice in opened:
            choice.begin(prepared.prompts[number], told)
        return opened

    async def _score(self, prepared: PreparedCompletion, number: int) -> list[Read]:
        """Bytes, log-probability and best candidates of each of a prompt's tokens; nothing is
        known of the first, for nothing stands before it."""
        generate = prepared.generates[number]
        of = prepared.renderer.tokenizer.token_bytes
        first, rest = generate.prompt[:1], generate.prompt[1:]
        unseen = prepared.renderer.tokenizer.control_ids
        told = [Read(of(first[0]), None, {}, first[0] not in unseen)]
        if not rest:
            return told
        top = prepared.request.logprobs or 0
        score = Score(generate.base, first, rest, generate.adapter, max(1, top))
        score.request_id, score.tag = f"{generate.request_id}-echo", dict(generate.tag)
        scored = await self._scorer.score(score)
        generate.tag[PROMPT_PAID] = score.request_id
        for place, token in enumerate(rest):
            best = zip(scored.top_ids[place], scored.top_logprobs[place], strict=True)
            candidates = {of(id): value for id, value in list(best)[:top]}
            told.append(Read(of(token), scored.logprobs[place], candidates, token not in unseen))
        return told


def _echoes_logprobs(request: CompletionRequest) -> bool:
    return bool(request.echo) and request.logprobs is not None


def _to_write(request: CompletionRequest, prompt: Sequence[int], context: int) -> int:
    """The tokens that the engine is asked for; 0: scoring the prompt is all that is needed, which
    takes two tokens at least."""
    if request.token_limit or len(prompt) < 2:
        return max(1, request.token_limit)
    return 0 if _echoes_logprobs(request) or len(prompt) >= context else 1


def _counted(request: CompletionRequest, final: Final) -> Final:
    """What the answer's usage tells of it."""
    return final if request.token_limit else replace(final, completion_tokens=0)


def _best(choices: list[CompletionChoice], count: int) -> list[CompletionChoice]:
    """The choices with the highest log-probability a token, where more were computed."""
    if len(choices) == count:
        return choices
    return sorted(choices, key=lambda choice: choice.mean_logprob, reverse=True)[:count]
