"""Items of responses: messages, calls and their results; and the chat messages they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from afina.errors import InvalidRequest
from afina.service.messages import Json, branch, text_or, unmatched, unsupported
from afina.service.refusals import Wire, fault, named

_KINDS = ("message", "function_call", "function_call_output")
_TEXTS = ("input_text", "output_text", "refusal")
_NOT_OFFERED = ("caller", "namespace", "async", "phase")
Status = Literal["in_progress", "completed", "incomplete"]


class ItemPart(Wire):
    """A part of a message's content; parts of text alone are offered."""

    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: Json = None
    logprobs: Json = None
    image_url: Json = None
    file_id: Json = None
    file_data: Json = None
    file_url: Json = None
    filename: Json = None
    detail: Json = None
    input_audio: Json = None
    prompt_cache_breakpoint: Json = None


Content = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[ItemPart], Field(min_length=1, max_length=4096), Tag("parts")],
    Discriminator(branch),
    text_or("an array of content parts"),
]


class MessageItem(Wire):
    """What somebody said."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(Wire):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None
    caller: Json = None
    namespace: Json = None
    async_: Annotated[Json, Field(alias="async")] = None


class CallOutputItem(Wire):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Status | None = None
    caller: Json = None
    name: Json = None
    namespace: Json = None


def _known(value: object) -> object:
    """Refuses items of other kinds by their kind."""
    if not isinstance(value, Mapping):
        raise fault("invalid_type", f"expected an object, but got {named(value)} instead")
    kind = value.get("type", "message")
    if kind not in _KINDS:
        raise fault(
            "invalid_value", f"items here are of the types {', '.join(_KINDS)}, and no others"
        )
    return value


def _kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return str(kind or "message")


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")],
    Discriminator(_kind),
    BeforeValidator(_known),
]


def item_messages(items: Sequence[Mapping[str, Any]], first: int = 0) -> list[dict[str, Any]]:
    """The chat messages that items stand for; calls one after the other are one turn. The items
    from `first` on are the request's own. Raises InvalidRequest, UnsupportedField."""
    messages: list[dict[str, Any]] = []
    called: set[str] = set()
    for place, item in enumerate(items):
        where = f"input[{place - first}]"
        for name in _NOT_OFFERED:
            if item.get(name) not in (None, False, {"type": "direct"}):
                raise unsupported(f"{where}.{name}", "leave it out")
        match item.get("type", "message"):
            case "function_call":
                called.add(item["call_id"])
                _add_call(messages, item)
            case "function_call_output":
                if place >= first and item["call_id"] not in called:
                    raise unmatched(f"{where}.call_id")
                content = _text(item["output"], f"{where}.output")
                answer = {"role": "tool", "tool_call_id": item["call_id"], "content": content}
                messages.append(answer)
            case _:
                content = _text(item["content"], f"{where}.content")
                messages.append({"role": item["role"], "content": content})
    if not messages:
        raise InvalidRequest("Invalid 'input': there is nothing in it.", param="input")
    return messages


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    call = {
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": item["arguments"]},
    }
    messages[-1].setdefault("tool_calls", []).append(call)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for place, part in enumerate(content):
        kind = part["type"]
        if kind not in _TEXTS:
            raise unsupported(f"{where}[{place}].type", "parts of text alone are taken")
        text = part.get("refusal" if kind == "refusal" else "text")
        if text is None:
            raise InvalidRequest(
                f"Missing required parameter: '{where}[{place}].text'.",
                param=f"{where}[{place}].text",
                code="missing_required_parameter",
            )
        texts.append(text)
    return "".join(texts)
