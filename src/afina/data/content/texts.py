"""A row of any kind as the texts that are compared: the context, what is asked, the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from afina.data.kinds import CHAT_KEYS, RowKind

_FUNCTION: Final = "function_call"
"""The older way to call one tool."""


@dataclass(frozen=True)
class RowTexts:
    """`context` is all that stands before the answer, with who says it; `asked` is what the users
    say in it; `answer` is the last answer, None for rows that have none."""

    context: str
    asked: str
    answer: str | None

    @property
    def both(self) -> str:
        """Question and answer, without the system's message, which rows often share."""
        return self.asked if self.answer is None else f"{self.asked}\n{self.answer}"


def row_texts(kind: RowKind, row: Mapping[str, Any]) -> RowTexts | None:
    """The texts of a row; None where it has not the shape of its kind."""
    if kind is RowKind.PROMPT_COMPLETION:
        prompt, completion = row.get("prompt") or "", row.get("completion")
        if not isinstance(prompt, str) or not isinstance(completion, str):
            return None
        return RowTexts(prompt, prompt, completion)
    chat = row.get("input") if kind is RowKind.PREFERENCE else row
    messages = chat.get("messages") if isinstance(chat, Mapping) else None
    if not isinstance(messages, list):
        return None
    said = [(m.get("role"), content_text(m)) for m in messages if isinstance(m, Mapping)]
    answer: str | None = None
    if kind is RowKind.PREFERENCE:
        liked = row.get("preferred_output")
        first = liked[0] if isinstance(liked, list) and liked else None
        answer = content_text(first) if isinstance(first, Mapping) else None
    elif kind is RowKind.CHAT and said and said[-1][0] == "assistant":
        answer = said.pop()[1]
    elif kind is RowKind.RFT:
        extra = {key: value for key, value in row.items() if key not in CHAT_KEYS}
        answer = repr(sorted(extra.items())) if extra else None
    if len(said) == 1:
        return RowTexts(f"{said[0][0]}\0{said[0][1]}", said[0][1], answer)
    context = "\0".join(f"{role}\0{text}" for role, text in said)
    asked = "\n".join(text for role, text in said if role not in ("system", "developer"))
    return RowTexts(context, asked, answer)


def content_text(message: Mapping[str, Any]) -> str:
    """What a message says; calls of tools as they are written."""
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return content
    if content is None:
        content = message.get("refusal")  # which is what is learned then
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else _part(part) for part in parts]
    return "".join([*texts, *_calls(message)])


def all_texts(value: Any) -> list[str]:
    """Every string in a JSON value, keys apart, in its order."""
    found: list[str] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[str]) -> None:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict | list):
            _collect(item, found)


def _part(part: Any) -> str:
    text = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else ""


def _calls(message: Mapping[str, Any]) -> Iterator[str]:
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) and calls else [{"function": message.get(_FUNCTION)}]
    for call in listed:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield f"\0{function.get('name')}\0{function.get('arguments')}"
