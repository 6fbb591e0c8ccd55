"""The request of a chat completion: every field of the wire, each honoured or refused by name.

`ChatRequest` checks types and ranges; `refuse_unsupported` then names what afina does not offer
wherever it is set to more than its neutral value. Nothing is accepted and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from afina.errors import InvalidRequest
from afina.service.asking import Question, Sampling, SchemaAsked
from afina.service.messages import AssistantMessage as AssistantMessage
from afina.service.messages import AudioPart as AudioPart
from afina.service.messages import FilePart as FilePart
from afina.service.messages import FunctionMessage as FunctionMessage
from afina.service.messages import ImagePart as ImagePart
from afina.service.messages import (
    Json,
    Message,
    branch,
    refuse_in_messages,
    text_or,
    unsupported,
)
from afina.service.messages import SystemMessage as SystemMessage
from afina.service.messages import TextPart as TextPart
from afina.service.messages import ToolMessage as ToolMessage
from afina.service.messages import UserMessage as UserMessage
from afina.service.refusals import Wire
from afina.service.tool_request import (
    MOST_TOOLS,
    Choice,
    FunctionDefinition,
    NamedFunction,
    Tool,
    ToolUse,
    call_rules,
    tool_use,
)


class StreamOptions(Wire):
    """What a stream says besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Padding of the chunks; only where it is asked for."""


StopText = Annotated[str, Field(min_length=1, max_length=1000)]
Stop = Annotated[
    Annotated[StopText, Tag("text")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("parts")],
    Discriminator(branch),
    text_or("an array of 1 to 4 strings"),
]
_NO_NUL: Final = r"^[^\x00]*$"
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64, pattern=_NO_NUL)],
        Annotated[str, Field(max_length=512, pattern=_NO_NUL)],
    ],
    Field(max_length=16),
]
TokenLimit = Annotated[int, Field(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
BiasValue = Annotated[float, Field(ge=-100.0, le=100.0)]
LogitBias = Annotated[dict[str, BiasValue], Field(max_length=2048)]


CacheKey = Annotated[str, Field(max_length=512)]
"""A hint for finding prefixes again; here a project's prefixes are found without one."""


class SchemaFormat(Wire):
    """A schema that an answer must follow. With `strict` a keyword that cannot be held is refused;
    without it, such a keyword is no rule. Name and description are for the schema's readers, as are
    the descriptions within it: none of it is shown to the model."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Wire):
    """What an answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class ChatRequest(Wire):
    """POST /v1/chat/completions."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=16_384)]
    max_completion_tokens: TokenLimit | None = None
    max_tokens: TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    prompt_cache_key: CacheKey | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Json = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Json = None
    parallel_tool_calls: bool | None = None
    functions: (
        Annotated[list[FunctionDefinition], Field(min_length=1, max_length=MOST_TOOLS)] | None
    ) = None
    function_call: Json = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: Json = None
    prediction: Json = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: Json = None
    moderation: Json = None
    store: bool | None = None
    metadata: Metadata | None = None

    @property
    def token_limit(self) -> int | None:
        """The most tokens that each answer may have, where the request says so."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return stop_strings(self.stop)


_NOT_OFFERED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "modalities": ((["text"],), "models answer with text alone: leave it out"),
    "audio": ((), "models answer with text alone: leave it out"),
    "prediction": ((), "predicted outputs are not offered: leave it out"),
    "reasoning_effort": (("none", "medium"), "models here do not reason apart: leave it out"),
    "verbosity": (("medium",), "tell the model in a message how long to answer"),
    "web_search_options": ((), "nothing leaves this machine: leave it out"),
    "moderation": ((), "moderation of answers is not offered yet: leave it out"),
    "prompt_cache_options": ((), "the prompt cache has no options: leave it out"),
    "prompt_cache_retention": (("in_memory",), "the prompt cache is in memory: leave it out"),
    "service_tier": (("auto", "default"), "there is one tier: leave it out"),
}
_BIAS_KEY: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""Without leading zeros: `7` and `07` would be two biases for one token."""


def refuse_unsupported(request: ChatRequest) -> None:
    """Raises UnsupportedField for the first field that asks for what afina does not offer."""
    for name, (neutral, why) in _NOT_OFFERED.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            raise unsupported(name, why)
    form = request.response_format
    if form is not None:
        _refuse_in_format(form)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise _not_both("max_tokens", "max_completion_tokens")
    if request.functions is not None and request.tools is not None:
        raise _not_both("functions", "tools")
    if request.function_call not in (None, "none") and not request.functions:
        raise _needs("function_call", "functions")
    if request.tool_choice not in (None, "none") and not request.tools:
        raise _needs("tool_choice", "tools")
    if request.parallel_tool_calls is not None and not request.tools:
        raise _needs("parallel_tool_calls", "tools")
    if request.top_logprobs is not None and not request.logprobs:
        raise _needs("top_logprobs", "logprobs")
    if request.stream_options is not None and not request.stream:
        raise _needs("stream_options", "stream")
    if request.metadata and not request.store:
        raise _needs("metadata", "store")
    refuse_in_messages(request.messages)


def _refuse_in_format(form: ResponseFormat) -> None:
    where = "response_format.json_schema"
    if form.type != "json_schema":
        if form.json_schema is not None:
            raise _needs(where, "response_format.type' is 'json_schema", "only allowed where")
        return
    if form.json_schema is None or form.json_schema.schema_ is None:
        where += "" if form.json_schema is None else ".schema"
        raise InvalidRequest(
            f"Missing required parameter: '{where}'.",
            param=where,
            code="missing_required_parameter",
        )


def plain_messages(request: ChatRequest) -> list[dict[str, Any]]:
    """The messages as the renderer takes them."""
    return [m.model_dump(exclude_none=True) for m in request.messages]


def question(request: ChatRequest) -> Question:
    """What is asked, in plain values. Raises InvalidRequest, UnsupportedField."""
    refuse_unsupported(request)
    labels = {
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
    }
    return Question(
        model=request.model,
        messages=plain_messages(request),
        sampling=Sampling(
            max_tokens=request.token_limit,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=bias_by_id(request.logit_bias),
            seed=request.seed,
            stop=request.stops,
            n=request.n or 1,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        ),
        use=_functions(request)
        or tool_use(request.tools or (), request.tool_choice, request.parallel_tool_calls),
        schema=_schema(request.response_format),
        labels={name: value for name, value in labels.items() if value is not None},
    )


def stop_strings(stop: str | list[str] | None) -> list[str]:
    """Stop strings, however many were given."""
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)


def bias_by_id(bias: Mapping[str, float] | None) -> dict[int, float]:
    """Biases by token id. Raises InvalidRequest for a key that is none."""
    for key in bias or ():
        if _BIAS_KEY.fullmatch(key) is None:
            raise InvalidRequest(
                "Invalid key in 'logit_bias': expected ids of tokens, such as \"1234\".",
                param="logit_bias",
                code="invalid_value",
            )
    return {int(key): value for key, value in (bias or {}).items()}


def _functions(request: ChatRequest) -> ToolUse | None:
    """The older way of asking for calls: one at a time."""
    functions, asked = request.functions, request.function_call
    if not functions or asked == "none":
        return None
    choice = Choice(single=True)
    if isinstance(asked, dict):
        named = NamedFunction.model_validate(asked) if set(asked) == {"name"} else None
        if named is not None:
            choice = Choice((named.name,), required=True, single=True)
    if asked not in (None, "auto") and not choice.required:
        raise InvalidRequest(
            "Invalid value for 'function_call': supported values are 'none', 'auto' and "
            '{"name": "…"}.',
            param="function_call",
            code="invalid_value",
        )
    written = [f.model_dump(exclude_unset=True) for f in functions]
    definitions = [{"type": "function", "function": function} for function in written]
    return ToolUse(definitions, call_rules(functions, choice, parallel=False))


def _schema(form: ResponseFormat | None) -> SchemaAsked | None:
    if form is None or form.type == "text":
        return None
    if form.json_schema is None or form.json_schema.schema_ is None:
        return SchemaAsked({"type": "object"}, strict=True, param="response_format")
    asked = form.json_schema
    return SchemaAsked(asked.schema_ or {}, bool(asked.strict), "response_format")


def _not_both(name: str, other: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{name}' and '{other}' cannot both be given: leave '{name}' out.",
        param=name,
        code="invalid_value",
    )


def _needs(param: str, other: str, words: str = "only allowed when") -> InvalidRequest:
    end = "" if " is " in other else " is true"
    if other in ("functions", "tools"):
        end = " are specified"
    return InvalidRequest(
        f"'{param}' is {words} '{other}'{end}.", param=param, code="invalid_value"
    )
