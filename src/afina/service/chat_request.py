"""The request of a chat completion: every field of the wire, each honoured or refused by name.

`ChatRequest` checks types and ranges; `refuse_unsupported` then names what afina does not offer
yet wherever it is set to more than its neutral value. Nothing is accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from afina.errors import InvalidRequest, UnsupportedField
from afina.service.refusals import Wire, fault, named

Json = Any
"""A value of a field that is refused whatever it says."""


class TextPart(Wire):
    """A content part with text."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Json = None


class ImageUrl(Wire):
    """Where an image is."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Wire):
    """A content part with an image; refused until vision comes."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Json = None


class AudioPart(Wire):
    """A content part with sound; refused."""

    type: Literal["input_audio"]
    input_audio: Json
    prompt_cache_breakpoint: Json = None


class FilePart(Wire):
    """A content part with a file; refused."""

    type: Literal["file"]
    file: Json
    prompt_cache_breakpoint: Json = None


class RefusalPart(Wire):
    """A content part that says why the model did not answer before."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[
    TextPart | ImagePart | AudioPart | FilePart | RefusalPart, Field(discriminator="type")
]


def _branch(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


def _text_or(others: str) -> BeforeValidator:
    """Refuses what is neither a string nor an array, in one sentence for both."""

    def check(value: object) -> object:
        if isinstance(value, str | list):
            return value
        raise fault(
            "invalid_type", f"expected a string or {others}, but got {named(value)} instead"
        )

    return BeforeValidator(check)


Content = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[Part], Field(min_length=1, max_length=4096), Tag("parts")],
    Discriminator(_branch),
    _text_or("an array of content parts"),
]


class SystemMessage(Wire):
    """What the model is told before the conversation."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Wire):
    """What a person says."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(Wire):
    """A call's function and its arguments as a string of JSON."""

    name: str
    arguments: str


class ToolCall(Wire):
    """A call that the model made before; custom tools are refused."""

    id: str
    type: Literal["function", "custom"] = "function"
    function: CalledFunction | None = None
    custom: Json = None


class AssistantMessage(Wire):
    """What the model said before."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    audio: Json = None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None


class ToolMessage(Wire):
    """What a tool answered before."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


class FunctionMessage(Wire):
    """The older form of a tool's answer."""

    role: Literal["function"]
    content: str
    name: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class StreamOptions(Wire):
    """What a stream says besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Padding of the chunks; only where it is asked for."""


StopText = Annotated[str, Field(min_length=1, max_length=1000)]
Stop = Annotated[
    Annotated[StopText, Tag("text")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("parts")],
    Discriminator(_branch),
    _text_or("an array of 1 to 4 strings"),
]
Metadata = Annotated[dict[str, str], Field(max_length=16)]
TokenLimit = Annotated[int, Field(ge=1, le=2**31 - 1)]


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
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: Json = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    logit_bias: dict[str, int] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Json] | None = None
    tool_choice: Json = None
    parallel_tool_calls: bool | None = None
    functions: list[Json] | None = None
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
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)


class ResponseFormat(Wire):
    """What an answer must look like; only `text` for now."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Json = None


ChatRequest.model_rebuild()


_NOT_OFFERED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "frequency_penalty": ((0.0,), "penalties are not offered yet: leave it out"),
    "presence_penalty": ((0.0,), "penalties are not offered yet: leave it out"),
    "logit_bias": (({},), "biases are not offered yet: leave it out"),
    "tools": (([],), "tools are not offered yet: leave them out"),
    "tool_choice": (("none", "auto"), "tools are not offered yet: leave it out"),
    "functions": ((), "functions are not offered yet: leave them out"),
    "function_call": (("none", "auto"), "functions are not offered yet: leave it out"),
    "modalities": ((["text"],), "models answer with text alone: leave it out"),
    "audio": ((), "models answer with text alone: leave it out"),
    "prediction": ((), "predicted outputs are not offered: leave it out"),
    "reasoning_effort": (("none", "medium"), "models here do not reason apart: leave it out"),
    "verbosity": (("medium",), "tell the model in a message how long to answer"),
    "web_search_options": ((), "nothing leaves this machine: leave it out"),
    "moderation": ((), "moderation of answers is not offered yet: leave it out"),
    "store": ((False,), "stored completions are not offered yet: leave it out"),
    "metadata": (({},), "it needs 'store', which is not offered yet: leave it out"),
    "prompt_cache_key": ((), "a project's prompts share one cache without a key: leave it out"),
    "prompt_cache_options": ((), "the prompt cache has no options: leave it out"),
    "prompt_cache_retention": (("in_memory",), "the prompt cache is in memory: leave it out"),
    "service_tier": (("auto", "default"), "there is one tier: leave it out"),
}
_PARTS_NOT_OFFERED = {
    "image_url": "images are not offered yet: send text",
    "input_audio": "sound is not offered: send text",
    "file": "files in messages are not offered: send their text",
}
_NO_NAME = "the models' templates have no place for names: put the name into the content"


def refuse_unsupported(request: ChatRequest) -> None:
    """Raises UnsupportedField for the first field that asks for what afina does not offer."""
    for name, (neutral, why) in _NOT_OFFERED.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            raise _unsupported(name, why)
    form = request.response_format
    if form is not None and (form.type != "text" or form.json_schema is not None):
        raise _unsupported("response_format", "constrained answers are not offered yet")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidRequest(
            "'max_tokens' and 'max_completion_tokens' cannot both be given: "
            "leave 'max_tokens' out.",
            param="max_tokens",
            code="invalid_value",
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise _needs("top_logprobs", "logprobs")
    if request.stream_options is not None and not request.stream:
        raise _needs("stream_options", "stream")
    for number, message in enumerate(request.messages):
        _refuse_in_message(message, f"messages[{number}]")


def _refuse_in_message(message: Message, where: str) -> None:
    if isinstance(message, SystemMessage | UserMessage | AssistantMessage) and message.name:
        raise _unsupported(f"{where}.name", _NO_NAME)
    if isinstance(message, AssistantMessage):
        _refuse_in_answer(message, where)
    if isinstance(message.content, list):
        for number, part in enumerate(message.content):
            _refuse_part(part, f"{where}.content[{number}]")


def _refuse_in_answer(message: AssistantMessage, where: str) -> None:
    if message.audio is not None:
        raise _unsupported(f"{where}.audio", "earlier answers are text alone")
    for number, call in enumerate(message.tool_calls or ()):
        if call.type != "function" or call.function is None:
            raise _unsupported(f"{where}.tool_calls[{number}].type", "only functions can be called")
    said = (message.content, message.refusal, message.tool_calls, message.function_call)
    if all(value is None or value == [] for value in said):
        raise InvalidRequest(
            f"Missing required parameter: '{where}.content'.",
            param=f"{where}.content",
            code="missing_required_parameter",
        )


def _refuse_part(part: Part, where: str) -> None:
    if isinstance(part, RefusalPart):
        return
    if not isinstance(part, TextPart):
        raise _unsupported(f"{where}.type", _PARTS_NOT_OFFERED[part.type])
    if part.prompt_cache_breakpoint is not None:
        raise _unsupported(f"{where}.prompt_cache_breakpoint", "caching needs no marks here")


def plain_messages(request: ChatRequest) -> list[dict[str, Any]]:
    """The messages as the renderer takes them."""
    return [m.model_dump(exclude_none=True) for m in request.messages]


def _unsupported(param: str, why: str) -> UnsupportedField:
    return UnsupportedField(f"'{param}' is not supported: {why}.", param=param)


def _needs(param: str, other: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{param}' is only allowed when '{other}' is true.", param=param, code="invalid_value"
    )
