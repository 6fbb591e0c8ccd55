"""Asking the engine: from a question in plain values to the request that the engine takes.

Chats and responses are questions; both are rendered, bounded and constrained here, so that the
same words get the same answer whichever way they came.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from afina.domain.accounts import Caller
from afina.domain.watch import Watched
from afina.errors import ContextTooLong, EngineFailed, InvalidRequest
from afina.service.masking import Masker
from afina.service.messages import refuse_names
from afina.service.models import ResolvedModel, resolve_model
from afina.service.platform import Platform
from afina.service.tool_request import ToolUse
from afina.service.usage import usage_tag
from afina.service.watcher import Watcher
from afina.serving.protocol import Delta, Generate
from afina.serving.protocol import Final as Last
from afina.text.calls import CallSyntax
from afina.text.grammars import calls_grammar, checked_schema, schema_grammar
from afina.text.renderer import Renderer

_COMPOSED: Final = 4
"""So many characters may become one where a tokenizer composes them first (NFC)."""
SEED_SPAN: Final = 2**63
"""Seeds are taken modulo this, so that negative ones are seeds too."""
_RENDERERS: Final = 32
"""Of bases, and of days where a template writes the date."""


class Engine(Protocol):
    """What is needed of the engine's client."""

    def generate(self, request: Generate) -> AsyncIterator[Delta | Last]: ...


@dataclass(frozen=True)
class Sampling:
    """How answers are chosen."""

    max_tokens: int | None = None
    """None: all that the context leaves."""
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: Sequence[str] = ()
    n: int = 1
    logprobs: int | None = None
    """As in the engine's protocol."""


@dataclass(frozen=True)
class SchemaAsked:
    """A JSON schema that answers must follow; `param` is the field it came in."""

    schema: Mapping[str, Any]
    strict: bool
    param: str


@dataclass(frozen=True)
class Question:
    """What is asked."""

    model: str
    messages: list[dict[str, Any]]
    sampling: Sampling
    use: ToolUse | None = None
    schema: SchemaAsked | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Copied into the usage's tag."""
    param: str = "messages"
    """The field that holds the words."""


@dataclass(frozen=True)
class Asked:
    """A question that is ready for the engine."""

    generate: Generate
    model: ResolvedModel
    syntax: CallSyntax | None
    """How calls are written; None where none may be made."""


class Asker:
    """Prepares questions and hears answers."""

    def __init__(self, platform: Platform, engine: Engine) -> None:
        self.platform = platform
        self._engine = engine
        self._renderers: dict[tuple[str, str, int | None], Renderer] = {}
        self._lock = threading.Lock()
        self._watch = platform.settings.watch
        self._watcher = Watcher(platform) if self._watch.enabled else None

    def ask(self, caller: Caller, question: Question, request_id: str) -> Asked:
        """Resolves, renders and checks; may take milliseconds. Raises ModelNotFound,
        ContextTooLong, InvalidRequest. `request_id` names the usage and must be unique."""
        model = resolve_model(self.platform, caller, question.model)
        renderer = self.renderer(model)
        use = question.use
        context = model.base.context_tokens or renderer.context_tokens
        texts = _texts(question.messages)
        refuse_enormous(renderer, texts, context, question.param)
        refuse_names(question.messages, renderer.named_roles)
        prompt = renderer.prompt(question.messages, None if use is None else use.definitions)
        most = room(
            len(prompt),
            question.sampling.max_tokens,
            context,
            question.param,
        )
        generate = self.request(caller, model, question.sampling, request_id, (prompt, most))
        generate.end_tokens = list(renderer.end_tokens)
        generate.grammar = _grammar(question, renderer)
        generate.tag.update(question.labels)
        if use is not None:
            generate.visible = list(renderer.call_tokens)
        roles = [str(m.get("role")) for m in question.messages]
        new = next((n for n in range(len(roles), 0, -1) if roles[n - 1] == "assistant"), 0)
        self.saw(generate, texts[new:], texts[:new])
        return Asked(generate, model, None if use is None else renderer.calls)

    def request(
        self,
        caller: Caller,
        model: ResolvedModel,
        how: Sampling,
        request_id: str,
        size: tuple[list[int], int],
    ) -> Generate:
        """The engine's request for the prompt and the number of tokens in `size`. Raises Forbidden
        where the abuse watch has stopped the key."""
        prompt, most = size
        tag = usage_tag(caller, model.name)
        if self._watcher is not None:
            self._watcher.check(_watched(tag))
        if self._watch.mask_answers and how.logprobs is not None:
            raise InvalidRequest(
                "This server masks personal data in answers; 'logprobs' would tell it.",
                param="logprobs",
                code="unsupported_value",
                remedy="Leave 'logprobs' out.",
            )
        return Generate(
            request_id=request_id,
            base=model.base.id,
            adapter=model.adapter,
            prompt=prompt,
            max_tokens=most,
            seed=self.platform.ids.seed() if how.seed is None else how.seed % SEED_SPAN,
            namespace=caller.project_id,
            n=how.n,
            temperature=how.temperature,
            top_p=how.top_p,
            presence_penalty=how.presence_penalty,
            frequency_penalty=how.frequency_penalty,
            logit_bias=dict(how.logit_bias),
            stop=list(how.stop),
            logprobs=how.logprobs,
            tag=tag,
        )

    def saw(self, generate: Generate, texts: Sequence[str], earlier: Sequence[str] = ()) -> None:
        """Shows the abuse watch what was asked, where there is one. `earlier`: what stood before
        the last answer, which counts once."""
        if self._watcher is not None:
            self._watcher.saw(_watched(generate.tag), texts, earlier)

    def renderer(self, model: ResolvedModel) -> Renderer:
        """What turns chats with this model into ids; loaded once. A template that writes the date
        is told the tune's, so that a tune is asked as it was trained."""
        moment = None if model.tuned is None else model.tuned.rendered_at
        key = (model.base.path, model.base.sha256, moment)
        found = self._renderers.get(key)
        if found is None:
            with self._lock:
                found = self._renderers.get(key)
                if found is None:
                    if len(self._renderers) >= _RENDERERS:
                        self._renderers.pop(next(iter(self._renderers)))
                    found = self._renderers[key] = Renderer.load(Path(model.base.path), moment)
        return found

    async def lines(self, generate: Generate) -> AsyncGenerator[Delta | Last]:
        """The engine's lines, the last one a Final. Raises what the engine says, and EngineFailed
        where it broke off. Leaving early takes the request back."""
        lines = self._engine.generate(generate)
        masker = Masker.of(self._watch.mask_kinds) if self._watch.mask_answers else None
        said: dict[int, str] = {}
        try:
            async for line in lines:
                if isinstance(line, Delta):
                    if self._watcher is not None:
                        said[line.choice] = said.get(line.choice, "") + line.text
                    line = line if masker is None else masker.mask(line)
                yield line
                if isinstance(line, Last):
                    return
        finally:
            if self._watcher is not None:
                masked = 0 if masker is None else masker.places
                self._watcher.saw(_watched(generate.tag), list(said.values()), masked=masked)
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()
        raise EngineFailed("The engine's answer ended without its final line; it is not whole.")


def _watched(tag: Mapping[str, str]) -> Watched:
    return Watched(tag["project"], tag["key"], tag["organization"], tag["model"])


def _texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each message's text; empty where it has none."""
    found = []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        texts = [p["text"] for p in parts if isinstance(p, Mapping) and "text" in p]
        found.append(content if isinstance(content, str) else "\n".join(map(str, texts)))
    return found


def room(prompt_tokens: int, asked: int | None, context_tokens: int, param: str) -> int:
    """How many tokens an answer may have: what was asked for, else all that is left. Raises
    ContextTooLong."""
    wanted = prompt_tokens + (1 if asked is None else asked)
    if wanted <= context_tokens:
        return context_tokens - prompt_tokens if asked is None else asked
    split = "" if asked is None else f" ({prompt_tokens} in the {param}, {asked} in the completion)"
    raise ContextTooLong(
        f"This model's maximum context length is {context_tokens} tokens. However, your request "
        f"needs {wanted} tokens{split}. Please shorten the {param} or the completion.",
        param=param,
    )


def refuse_enormous(
    renderer: Renderer, texts: Sequence[str], context_tokens: int, param: str
) -> None:
    """Refuses texts that cannot fit whatever their tokens are, before they are computed: those of
    20 MB take many seconds. Raises ContextTooLong."""
    if not renderer.tokenizer.is_byte_level:
        return  # an unknown word of any length may be one token
    characters = sum(len(text.strip()) for text in texts)
    least = characters // (_COMPOSED * renderer.tokenizer.longest_token)
    if least > context_tokens:
        raise ContextTooLong(
            f"This model's maximum context length is {context_tokens} tokens. However, your "
            f"request has {characters} characters, which are more tokens than that. Please "
            f"shorten the {param}.",
            param=param,
        )


def _grammar(question: Question, renderer: Renderer) -> str | None:
    asked, use = question.schema, question.use
    if use is None:
        if asked is None:
            return None
        return schema_grammar(asked.schema, strict=asked.strict, param=asked.param)
    schema = None
    if asked is not None:
        schema = checked_schema(asked.schema, strict=asked.strict, param=asked.param)
    return calls_grammar(use.rules, renderer.calls, renderer.tokenizer, schema)
