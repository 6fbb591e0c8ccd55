"""Rows of ours in the layouts of others, and why a row cannot be written in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from afina.data.content.texts import content_text
from afina.errors import InvalidRequest

Row = Mapping[str, Any]
_FROM: Final = {"user": "human", "assistant": "gpt", "tool": "observation"}


def write_row(layout: str, row: Row) -> dict[str, Any]:
    """A row in a layout. Raises InvalidRequest that says what the layout cannot hold."""
    return _WRITERS[layout](row)


def _messages(row: Row) -> list[Mapping[str, Any]]:
    if "prompt" in row and "completion" in row:
        return [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        raise InvalidRequest("the row is no chat", param="as")
    if any(m.get("tool_calls") or m.get("function_call") for m in messages):
        raise InvalidRequest("calls of tools cannot be written so", param="as")
    if row.get("tools") or row.get("functions"):
        raise InvalidRequest("tools cannot be written so", param="as")
    for message in messages:
        _holds_text_alone(message)
    return messages


def _holds_text_alone(message: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what would be lost where only who speaks and a text are kept."""
    content = message.get("content")
    if isinstance(content, list) and not all(
        isinstance(part, str) or (isinstance(part, Mapping) and isinstance(part.get("text"), str))
        for part in content
    ):
        raise InvalidRequest("pictures, sound and files cannot be written so", param="as")
    if message.get("refusal"):
        raise InvalidRequest("a refusal cannot be written so", param="as")
    if message.get("name"):
        raise InvalidRequest("the name of who speaks cannot be written so", param="as")


def _learned(row: Row) -> list[Mapping[str, Any]]:
    """The messages, where no answer is kept from being learned."""
    messages = _messages(row)
    if any(m.get("weight") not in (None, 1) for m in messages):
        raise InvalidRequest("weights cannot be written so", param="as")
    return messages


def _chat(row: Row) -> dict[str, Any]:
    if "messages" in row or "input" in row:
        return dict(row)
    return {"messages": [dict(message) for message in _messages(row)]}


def _sharegpt(row: Row) -> dict[str, Any]:
    return {"conversations": [_turn(message) for message in _messages(row)]}


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    role = str(message.get("role"))
    turn = {"from": _FROM.get(role, role), "value": content_text(message)}
    return turn if message.get("weight") is None else turn | {"weight": message["weight"]}


def _alpaca(row: Row) -> dict[str, Any]:
    system, asked, answer = _one_turn(row)
    written = {"instruction": asked, "input": "", "output": answer}
    return written | ({"system": system} if system else {})


def _chatml(row: Row) -> dict[str, Any]:
    said = [(m.get("role"), content_text(m)) for m in _learned(row)]
    if any(mark in text for _, text in said for mark in ("<|im_start|>", "<|im_end|>")):
        raise InvalidRequest("a text holds the marks of ChatML itself", param="as")
    return {"text": "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)}


def _pair(row: Row) -> dict[str, Any]:
    if "completion" in row:
        return dict(row)
    system, asked, answer = _one_turn(row)
    return {"prompt": f"{system}\n\n{asked}" if system else asked, "completion": answer}


def _preference(row: Row) -> dict[str, Any]:
    if "preferred_output" not in row:
        raise InvalidRequest("the row has no two answers", param="as")
    return dict(row)


def _one_turn(row: Row) -> tuple[str, str, str]:
    """System, question and answer of a chat that has one of each."""
    messages = _learned(row)
    system = ""
    if messages and messages[0].get("role") in ("system", "developer"):
        system, messages = content_text(messages[0]), messages[1:]
    if [m.get("role") for m in messages] != ["user", "assistant"]:
        raise InvalidRequest("not one question and one answer", param="as")
    return system, content_text(messages[0]), content_text(messages[1])


_WRITERS: Final[Mapping[str, Callable[[Row], dict[str, Any]]]] = {
    "chat": _chat,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "chatml": _chatml,
    "pair": _pair,
    "preference": _preference,
}
WRITTEN: Final = tuple(_WRITERS)
