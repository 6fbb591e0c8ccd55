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
    return messages


def _chat(row: Row) -> dict[str, Any]:
    if "messages" in row or "input" in row:
        return dict(row)
    return {"messages": [dict(message) for message in _messages(row)]}


def _sharegpt(row: Row) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": _FROM.get(str(m.get("role")), str(m.get("role"))), "value": content_text(m)}
            for m in _messages(row)
        ]
    }


def _alpaca(row: Row) -> dict[str, Any]:
    system, asked, answer = _one_turn(row)
    written = {"instruction": asked, "input": "", "output": answer}
    return written | ({"system": system} if system else {})


def _chatml(row: Row) -> dict[str, Any]:
    texts = [f"<|im_start|>{m.get('role')}\n{content_text(m)}<|im_end|>\n" for m in _messages(row)]
    return {"text": "".join(texts)}


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
    messages = _messages(row)
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
