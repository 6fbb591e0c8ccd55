"""Messages of a chat as the wire has them, each part honoured or refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
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


def branch(value: object) -> str:
    """Which of a string and an array a value is read as."""
    return "parts" if isinstance(value, list) else "text"


def text_or(others: str) -> BeforeValidator:
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
    Discriminator(branch),
    text_or("an array of content parts"),
]


Speaker = Annotated[str, Field(pattern=r"^[^\s<|\\/>]{1,64}$")]
"""The name of who speaks, in the form that the hosted API takes."""


class SystemMessage(Wire):
    """What the model is told before the conversation."""

    role: Literal["system", "developer"]
    content: Content
    name: Speaker | None = None


class UserMessage(Wire):
    """What a person says."""

    role: Literal["user"]
    content: Content
    name: Speaker | None = None


class CalledFunction(Wire):
    """A call's function and its arguments as a string of JSON."""

    name: str
    arguments: str
    parsed_arguments: Annotated[Json, Field(exclude=True)] = None
    """The arguments once more, as the client's helpers read them from an answer of ours."""


class ToolCall(Wire):
    """A call that the model made before; custom tools are refused."""

    id: str
    type: Literal["function", "custom"] = "function"
    function: CalledFunction | None = None
    custom: Json = None
    index: Annotated[int | None, Field(exclude=True)] = None
    """Its number in the stream that it came in, as the client's helpers keep it."""


class AssistantMessage(Wire):
    """What the model said before."""

    role: Literal["assistant"]
    content: Content | None = None
    name: Speaker | None = None
    refusal: str | None = None
    audio: Json = None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None
    annotations: Annotated[list[Json] | None, Field(exclude=True)] = None
    """What the client sends back with an answer of ours: an empty list."""
    parsed: Annotated[Json, Field(exclude=True)] = None
    """The content once more, as the client's helpers read it from an answer of ours."""


class ToolMessage(Wire):
    """What a tool answered before."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None
    """The function's once more, as code of the first tools writes it."""


class FunctionMessage(Wire):
    """The older form of a tool's answer."""

    role: Literal["function"]
    content: str
    name: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


_PARTS_NOT_OFFERED = {
    "image_url": "images are not offered yet: send text",
    "input_audio": "sound is not offered: send text",
    "file": "files in messages are not offered: send their text",
}
_NO_NAME = (
    "this model's template has no place for the name of who speaks, so it would change nothing: "
    "leave it out, or write it into the content"
)


def refuse_in_messages(messages: Sequence[Message]) -> None:
    """Raises UnsupportedField or InvalidRequest for the first part that cannot be written."""
    called: dict[str, str] = {}
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        _refuse_in_message(message, where)
        if isinstance(message, AssistantMessage):
            called |= {c.id: c.function.name for c in message.tool_calls or () if c.function}
        elif isinstance(message, ToolMessage):
            _refuse_result(message, called, where)


def refuse_names(messages: Sequence[Mapping[str, Any]], named_roles: Set[str]) -> None:
    """Raises UnsupportedField for the first speaker whose name the model would not be shown. A
    result's name is its function's, which the call before it says."""
    for number, message in enumerate(messages):
        role = str(message.get("role"))
        if role not in ("tool", "function") and role not in named_roles and "name" in message:
            raise unsupported(f"messages[{number}].name", _NO_NAME)


def unmatched(param: str) -> InvalidRequest:
    """The refusal of a tool's result that answers no call."""
    return InvalidRequest(
        f"Invalid value for '{param}': it answers no call that was made before it.",
        param=param,
        code="invalid_value",
        remedy="Send the answer that made the call too, with its id.",
    )


def _refuse_result(message: ToolMessage, called: Mapping[str, str], where: str) -> None:
    """A result that answers no call, or names another function than the call does."""
    if message.tool_call_id not in called:
        raise unmatched(f"{where}.tool_call_id")
    if message.name not in (None, called[message.tool_call_id]):
        raise InvalidRequest(
            f"Invalid value for '{where}.name': the call that this answers is of another function.",
            param=f"{where}.name",
            code="invalid_value",
            remedy="Leave it out, or name the function that was called.",
        )


def _refuse_in_message(message: Message, where: str) -> None:
    if isinstance(message, AssistantMessage):
        _refuse_in_answer(message, where)
    if isinstance(message.content, list):
        for number, part in enumerate(message.content):
            _refuse_part(part, f"{where}.content[{number}]")


def _refuse_in_answer(message: AssistantMessage, where: str) -> None:
    if message.audio is not None:
        raise unsupported(f"{where}.audio", "earlier answers are text alone")
    if message.annotations:
        raise unsupported(f"{where}.annotations", "answers here cite nothing")
    for number, call in enumerate(message.tool_calls or ()):
        if call.type != "function" or call.function is None:
            raise unsupported(f"{where}.tool_calls[{number}].type", "only functions can be called")
    said = (message.content, message.refusal, message.tool_calls, message.function_call)
    if all(value is None or value == [] for value in said):
        raise InvalidRequest(
            f"Missing required parameter: '{where}.content'.",
            param=f"{where}.content",
            code="missing_required_parameter",
        )
    if message.refusal and message.content:
        raise InvalidRequest(
            f"'{where}.refusal' and '{where}.content' cannot both be given: an answer is one or "
            "the other.",
            param=f"{where}.refusal",
            code="invalid_value",
        )


def _refuse_part(part: Part, where: str) -> None:
    if isinstance(part, RefusalPart):
        return
    if not isinstance(part, TextPart):
        raise unsupported(f"{where}.type", _PARTS_NOT_OFFERED[part.type])
    if part.prompt_cache_breakpoint is not None:
        raise unsupported(f"{where}.prompt_cache_breakpoint", "caching needs no marks here")


def unsupported(param: str, why: str) -> UnsupportedField:
    """The refusal of a field that the wire knows."""
    return UnsupportedField(f"'{param}' is not supported: {why}.", param=param)
