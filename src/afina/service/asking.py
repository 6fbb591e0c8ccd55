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
from afina.errors import ContextTooLong, EngineFailed
from afina.service.models import ResolvedModel, resolve_model
from afina.service.platform import Platform
from afina.service.tool_request import ToolUse
from afina.service.usage import usage_tag
from afina.serving.protocol import Delta, Generate
from afina.serving.protocol import Final as Last
from afina.text.calls import CallSyntax
from afina.text.grammars import calls_grammar, checked_schema, schema_grammar
from afina.text.renderer import Renderer

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

    def ask(self, caller: Caller, question: Question, request_id: str) -> Asked:
        """Resolves, renders and checks; may take milliseconds. Raises ModelNotFound,
        ContextTooLong, InvalidRequest. `request_id` names the usage and must be unique."""
        model = resolve_model(self.platform, caller, question.model)
        renderer = self.renderer(model)
        use = question.use
        prompt = renderer.prompt(question.messages, None if use is None else use.definitions)
        most = room(
            len(prompt),
            question.sampling.max_tokens,
            model.base.context_tokens or renderer.context_tokens,
            question.param,
        )
        generate = self.request(caller, model, question.sampling, request_id, (prompt, most))
        generate.end_tokens = list(renderer.end_tokens)
        generate.grammar = _grammar(question, renderer)
        generate.tag.update(question.labels)
        if use is not None:
            generate.visible = list(renderer.call_tokens)
        return Asked(generate, model, None if use is None else renderer.calls)

    def request(
        self,
        caller: Caller,
        model: ResolvedModel,
        how: Sampling,
        request_id: str,
        size: tuple[list[int], int],
    ) -> Generate:
        """The engine's request for the prompt and the number of tokens in `size`."""
        prompt, most = size
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
            tag=usage_tag(caller, model.name),
        )

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
        try:
            async for line in lines:
                yield line
                if isinstance(line, Last):
                    return
        finally:
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()
        raise EngineFailed("The engine's answer ended without its final line; it is not whole.")


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
