"""The request of a response: each field honoured or refused by name, items into messages.

A response is a chat in another dress: its items become the same messages, so the same words get
the same answer through either door.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from afina.errors import InvalidRequest, UnsupportedField
from afina.service.asking import Question, Sampling, SchemaAsked
from afina.service.chat_request import CacheKey, Metadata, TokenLimit
from afina.service.messages import Json, branch, text_or, unsupported
from afina.service.refusals import Wire, parse
from afina.service.response_items import Item, item_messages
from afina.service.tool_request import (
    MOST_TOOLS,
    FunctionName,
    FunctionTool,
    ToolUse,
    tool_use,
)

LOGPROBS: Final = "message.output_text.logprobs"


class TextFormat(Wire):
    """What the text of an answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None
    description: str | None = None


class TextConfig(Wire):
    """How the text of an answer is to be."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseTool(Wire):
    """A tool; only functions are offered."""

    type: str
    name: FunctionName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    allowed_callers: Json = None
    defer_loading: Json = None
    output_schema: Json = None
    async_: Annotated[Json, Field(alias="async")] = None


class ResponseStreamOptions(Wire):
    """What a stream says besides its events."""

    include_obfuscation: bool | None = None


Input = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[Item], Field(min_length=1, max_length=16_384), Tag("parts")],
    Discriminator(branch),
    text_or("an array of items"),
]


class ResponseCount(Wire):
    """POST /v1/responses/input_tokens, and what each response is asked with."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Input | None = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    tools: Annotated[list[Json], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Json = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: Json = None
    reasoning: Json = None


class ResponseRequest(ResponseCount):
    """POST /v1/responses."""

    max_output_tokens: TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    background: bool | None = None
    background_options: Json = None
    access_programs: Json = None
    context_management: Json = None
    image: Json = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    moderation: Json = None
    prompt: Json = None
    prompt_cache_key: CacheKey | None = None
    prompt_cache_options: Json = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None

    @property
    def stored(self) -> bool:
        """Whether the response is kept; it is unless the request says no."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are told."""
        return LOGPROBS in (self.include or ()) or self.top_logprobs is not None


_NOT_OFFERED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "conversation": ((), "use 'previous_response_id', or send the items"),
    "reasoning": (({},), "models here do not reason apart: leave it out"),
    "truncation": (("disabled",), "nothing is left out in silence: shorten the input"),
    "background": ((False,), "responses are answered while you wait; batches are for later"),
    "background_options": ((), "responses are answered while you wait: leave it out"),
    "access_programs": ((), "there are no access programs here: leave it out"),
    "context_management": ((), "nothing is compacted: leave it out"),
    "image": ((), "models answer with text alone: leave it out"),
    "max_tool_calls": ((), "only functions of yours are called, by you: leave it out"),
    "moderation": ((), "moderation of answers is not offered yet: leave it out"),
    "prompt": ((), "there are no stored prompts here: send instructions and input"),
    "prompt_cache_options": ((), "the prompt cache has no options: leave it out"),
    "prompt_cache_retention": (("in_memory",), "the prompt cache is in memory: leave it out"),
    "service_tier": (("auto", "default"), "there is one tier: leave it out"),
}


def refuse_unsupported(request: ResponseCount) -> None:
    """Raises UnsupportedField or InvalidRequest for what cannot be done."""
    for name, (neutral, why) in _NOT_OFFERED.items():
        value = getattr(request, name, None)
        if value is not None and value not in neutral:
            raise unsupported(name, why)
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise unsupported("text.verbosity", "tell the model in a message how long to answer")
    if request.input is None and request.previous_response_id is None:
        raise InvalidRequest(
            "Missing required parameter: 'input'.",
            param="input",
            code="missing_required_parameter",
        )
    if isinstance(request, ResponseRequest):
        for number, name in enumerate(request.include or ()):
            if name != LOGPROBS:
                raise unsupported(f"include[{number}]", f"only {LOGPROBS} can be included")
        if request.stream_options is not None and not request.stream:
            raise InvalidRequest(
                "'stream_options' is only allowed when 'stream' is true.",
                param="stream_options",
                code="invalid_value",
            )


def input_items(request: ResponseCount) -> list[dict[str, Any]]:
    """The items that were put in, as plain values."""
    if request.input is None:
        return []
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": request.input}]
    return [item.model_dump(exclude_none=True, by_alias=True) for item in request.input]


def question(request: ResponseCount, earlier: list[dict[str, Any]]) -> Question:
    """What is asked, after `earlier` items. Raises InvalidRequest, UnsupportedField."""
    refuse_unsupported(request)
    messages = item_messages([*earlier, *input_items(request)], len(earlier))
    if request.instructions is not None:
        messages.insert(0, {"role": "system", "content": request.instructions})
    how, labels = Sampling(), {}
    if isinstance(request, ResponseRequest):
        how = Sampling(
            max_tokens=request.max_output_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            logprobs=(request.top_logprobs or 0) if request.wants_logprobs else None,
        )
        given = {
            "user": request.user,
            "safety_identifier": request.safety_identifier,
            "prompt_cache_key": request.prompt_cache_key,
        }
        labels = {name: value for name, value in given.items() if value is not None}
    return Question(
        model=request.model,
        messages=messages,
        sampling=how,
        use=response_tools(request),
        schema=_schema(request.text),
        labels=labels,
        param="input",
    )


def response_tools(request: ResponseCount) -> ToolUse | None:
    """The tools in the shape that chats have, and which may be called."""
    tools = []
    for number, written in enumerate(request.tools or ()):
        tools.append(_function(written, f"tools[{number}]"))
    choice = _chat_choice(request.tool_choice)
    return tool_use(tools, choice, request.parallel_tool_calls, "tools[{}].parameters")


def _function(written: Json, where: str) -> FunctionTool:
    try:
        tool = parse(ResponseTool, written)
    except InvalidRequest as error:
        # A tool of another kind has fields of its own: its kind is what is wrong.
        kind = written.get("type") if isinstance(written, dict) else None
        if isinstance(kind, str) and kind != "function":
            raise _no_such_tool(where) from None
        if error.param == "function":
            error.remedy = "In responses name and parameters stand beside the tool's type."
        error.message = error.message.replace(f"'{error.param}'", f"'{where}.{error.param}'")
        error.param = f"{where}.{error.param}" if error.param else where
        raise
    if tool.type != "function":
        raise _no_such_tool(where)
    for name in ("allowed_callers", "defer_loading", "output_schema", "async_"):
        if getattr(tool, name) not in (None, False, ["direct"]):
            raise unsupported(f"{where}.{name.rstrip('_')}", "functions are called by you alone")
    if tool.name is None:
        raise InvalidRequest(
            f"Missing required parameter: '{where}.name'.",
            param=f"{where}.name",
            code="missing_required_parameter",
        )
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    shown = {name: value for name, value in function.items() if value is not None}
    made = parse(FunctionTool, {"type": "function", "function": shown})
    if tool.strict:
        strict = made.function.model_copy(update={"strict": True})
        return made.model_copy(update={"function": strict})
    return made


def _no_such_tool(where: str) -> UnsupportedField:
    return unsupported(f"{where}.type", "only functions can be called")


def _chat_choice(choice: Json) -> Json:
    """`tool_choice` in the shape that chats have."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    if kind == "function" and set(choice) <= {"type", "name"}:
        return {"type": "function", "function": {"name": choice.get("name", "")}}
    if kind == "allowed_tools":
        tools = choice.get("tools")
        named = [
            {"type": "function", "function": {"name": tool.get("name", "")}}
            for tool in (tools if isinstance(tools, list) else ())
            if isinstance(tool, dict) and tool.get("type") == "function"
        ]
        allowed = {"mode": choice.get("mode"), "tools": named}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    raise unsupported("tool_choice.type", "only functions can be called")


def _schema(text: TextConfig | None) -> SchemaAsked | None:
    form = None if text is None else text.format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return SchemaAsked({"type": "object"}, strict=True, param="text.format")
    for name, value in (("name", form.name), ("schema", form.schema_)):
        if value is None:
            raise InvalidRequest(
                f"Missing required parameter: 'text.format.{name}'.",
                param=f"text.format.{name}",
                code="missing_required_parameter",
            )
    return SchemaAsked(form.schema_ or {}, bool(form.strict), "text.format.schema")
