"""How a record holds its row, and each such layout read into a row of ours.

chat         {"messages": [...]}
sharegpt     {"conversations": [{"from": "human", "value": ...}, ...], "system"?: ...}
alpaca       {"instruction": ..., "input"?: ..., "output": ..., "system"?: ...}
chatml       {"text": "<|im_start|>user\\n...<|im_end|>..."}
pair         {"prompt": ..., "completion": ...}, written as raw text
preference   OpenAI's input and two outputs; or prompt, chosen and rejected
columns      any table: what the user and the assistant say stands in columns or templates
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from afina.data.cells import cell_text
from afina.errors import InvalidRequest

Row = dict[str, Any]
ROLE_NAMES: Final[Mapping[str, str]] = {
    "human": "user",
    "customer": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""What others call who speaks; roles of ours are themselves."""
_KNOWN: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_MARK: Final = re.compile(r"<\|im_start\|>[ ]?(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.S)


def role_of(name: object) -> str:
    """The role that a name stands for; the name itself where nobody knows it, for the check."""
    plain = cell_text(name).strip()
    lower = plain.lower()
    return lower if lower in _KNOWN else ROLE_NAMES.get(lower, plain)


def find_layout(columns: Sequence[str]) -> str | None:
    """The layout that the columns' names give away; None where they could be anything."""
    names = set(columns)
    if "messages" in names:
        return "chat"
    if {"input", "preferred_output", "non_preferred_output"} <= names:
        return "preference"
    if {"chosen", "rejected"} <= names:
        return "preference"
    if "conversations" in names:
        return "sharegpt"
    if {"instruction", "output"} <= names:
        return "alpaca"
    return None


def read_layout(layout: str, values: Mapping[str, Any]) -> Row:
    """A record of a layout as a row. Raises InvalidRequest, without its text, where it is none."""
    return _READERS[layout](values)


def _chat(values: Mapping[str, Any]) -> Row:
    return dict(values)


def _sharegpt(values: Mapping[str, Any]) -> Row:
    turns = values.get("conversations", values.get("conversation"))
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise InvalidRequest("conversations is no list of turns", param="layout")
    messages = [
        {
            "role": role_of(turn.get("from", turn.get("role"))),
            "content": cell_text(turn.get("value", turn.get("content"))),
        }
        for turn in turns
    ]
    return {"messages": [*_system(values), *messages]}


def _alpaca(values: Mapping[str, Any]) -> Row:
    asked = cell_text(values.get("instruction"))
    more = cell_text(values.get("input"))
    question = f"{asked}\n\n{more}" if more.strip() else asked
    return {
        "messages": [
            *_system(values),
            {"role": "user", "content": question},
            {"role": "assistant", "content": cell_text(values.get("output"))},
        ]
    }


def _chatml(values: Mapping[str, Any]) -> Row:
    found = _MARK.findall(cell_text(values.get("text")))
    if not found:
        raise InvalidRequest("text holds no <|im_start|>", param="layout")
    return {"messages": [{"role": role_of(role), "content": text} for role, text in found]}


def _pair(values: Mapping[str, Any]) -> Row:
    return {
        "prompt": cell_text(values.get("prompt")),
        "completion": cell_text(values.get("completion")),
    }


def _preference(values: Mapping[str, Any]) -> Row:
    if "preferred_output" in values:
        return dict(values)
    chosen, rejected = values.get("chosen"), values.get("rejected")
    if isinstance(chosen, list) and isinstance(rejected, list) and chosen and rejected:
        before = _messages(values.get("prompt"), values) or [dict(m) for m in chosen[:-1]]
        return _preferred(before, dict(chosen[-1]), dict(rejected[-1]))
    answers = [{"role": "assistant", "content": cell_text(one)} for one in (chosen, rejected)]
    return _preferred(_messages(values.get("prompt"), values) or [], *answers)


def _messages(prompt: Any, values: Mapping[str, Any]) -> list[Row] | None:
    if isinstance(prompt, list):
        return [dict(message) for message in prompt]
    if prompt is None:
        return None
    return [*_system(values), {"role": "user", "content": cell_text(prompt)}]


def _preferred(messages: list[Row], liked: Row, other: Row) -> Row:
    return {
        "input": {"messages": messages},
        "preferred_output": [liked],
        "non_preferred_output": [other],
    }


def _system(values: Mapping[str, Any]) -> list[Row]:
    text = cell_text(values.get("system"))
    return [{"role": "system", "content": text}] if text else []


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Row]]] = {
    "chat": _chat,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "chatml": _chatml,
    "pair": _pair,
    "preference": _preference,
}
LAYOUTS: Final = (*_READERS, "columns")
