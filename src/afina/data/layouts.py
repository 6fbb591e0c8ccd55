"""How a record holds its row, and each such layout read into a row of ours.

chat         {"messages": [...]}
sharegpt     {"conversations": [{"from": "human", "value": ...}, ...], "system"?: ...}
alpaca       {"instruction": ..., "input"?: ..., "output": ..., "system"?: ...}
chatml       {"text": "<|im_start|>user\\n...<|im_end|>..."}
pair         {"prompt": ..., "completion": ...}, written as raw text
preference   OpenAI's input and two outputs; or prompt, chosen and rejected
columns      any table: what the user and the assistant say stands in columns or templates

Those of other services (`afina.data.exports`) are read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from afina.data import exports
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
    "representative": "assistant",
    "operator": "assistant",
    "support": "assistant",
    "advisor": "assistant",
    "client": "user",
    "cliente": "user",
    "usuario": "user",
    "usuário": "user",
    "kunde": "user",
    "asistente": "assistant",
    "assistente": "assistant",
    "agente": "assistant",
    "atendente": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""What others call who speaks; roles of ours are themselves."""
_KNOWN: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TURN_KEYS: Final = ("conversations", "conversation", "dialog", "dialogue", "turns")
_TURNS: Final = frozenset(_TURN_KEYS)
_BESIDE_TURNS: Final = frozenset({"system", "tools", "id"})
_SAID: Final = ("value", "content", "text", "utterance")
_WHO: Final = ("from", "role", "speaker", "sender")
_EXPORTS: Final[Mapping[str, frozenset[str]]] = {
    "gemini": frozenset({"contents"}),
    "chatgpt": frozenset({"mapping", "current_node"}),
    "claude": frozenset({"chat_messages"}),
    "eval": frozenset({"input", "ideal"}),
}
"""The keys that give a layout of another service away."""
_TURNS_OF: Final = {"gemini": "contents", "chatgpt": "mapping", "claude": "chat_messages"}
"""The key of a layout under which its turns stand; a column of that name may hold texts."""
_MARK: Final = re.compile(r"<\|im_start\|>[ ]?(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.S)
_BETWEEN: Final = re.compile(r"\s+|</?s>|<[be]os>|<\|(?:endoftext|begin_of_text|end_of_text)\|>")
"""What may stand around the turns of a ChatML text without being said by anyone."""


def role_of(name: object) -> str:
    """The role that a name stands for; the name itself where nobody knows it, for the check."""
    plain = cell_text(name).strip()
    lower = plain.lower()
    return lower if lower in _KNOWN else ROLE_NAMES.get(lower, plain)


def unknown_role(message: object) -> str | None:
    """The role of a message that no chat has; None for a usual one."""
    role = message.get("role") if isinstance(message, Mapping) else None
    return role if isinstance(role, str) and role not in _KNOWN else None


def find_layout(columns: Sequence[str], nested: Collection[str] = ()) -> str | None:
    """The layout that the columns' names give away; None where they could be anything. `nested`:
    those that hold objects, where others hold texts."""
    names = {column.strip().lower() for column in columns}
    turns = {column.strip().lower() for column in nested}
    if "messages" in names:
        return "converse" if names & {"system", "schemaversion"} else "chat"
    for layout, keys in _EXPORTS.items():
        if keys <= names and _TURNS_OF.get(layout) in {None, *turns}:
            return layout
    if {"input", "preferred_output", "non_preferred_output"} <= names:
        return "preference"
    if {"chosen", "rejected"} <= names:
        return "preference"
    if "conversations" in names or (names & _TURNS and names <= _TURNS | _BESIDE_TURNS):
        return "sharegpt"
    if {"instruction", "output"} <= names or {"instruction", "context", "response"} <= names:
        return "alpaca"
    return None


def not_used(layout: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Columns that a layout makes nothing of."""
    used = _USED.get(layout)
    if used is None:
        return ()
    return tuple(column for column in columns if column.strip().lower() not in used)


def read_layout(layout: str, values: Mapping[str, Any], left_out: exports.LeftOut) -> Row:
    """A record of a layout as a row; what is no part of it is counted in `left_out`. Raises
    InvalidRequest, without its text, where it is none."""
    if layout in _USED:
        values = {key.strip().lower(): value for key, value in values.items()}
    try:
        if layout in _WITH_MORE:
            return _WITH_MORE[layout](values, left_out)
        return _READERS[layout](values)
    except RecursionError:
        raise InvalidRequest("a value is nested too deep", param="layout") from None


def _chat(values: Mapping[str, Any]) -> Row:
    row = {"messages" if _is_messages(key) else key: value for key, value in values.items()}
    for key in ("messages", "tools", "functions"):
        if isinstance(row.get(key), str):
            row[key] = _written_list(row[key], key)
    return row


def _converse(values: Mapping[str, Any]) -> Row:
    names = {key.strip().lower(): key for key in values}
    system = values.get(names.get("system", ""))
    beside = {names.get("system"), names.get("schemaversion")}
    row = _chat({key: value for key, value in values.items() if key not in beside})
    if isinstance(row.get("messages"), list):
        row["messages"] = exports.system_in_front(system, row["messages"])
    return row


def _is_messages(key: str) -> bool:
    return key.strip().lower() == "messages"


def _written_list(text: str, key: str) -> Any:
    """A list that a table holds as its JSON text."""
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise InvalidRequest(f"{key} is a text that is no JSON list", param="layout")
    return value


def _sharegpt(values: Mapping[str, Any]) -> Row:
    turns = next((values[key] for key in _TURN_KEYS if key in values), None)
    if isinstance(turns, str):
        turns = _written_list(turns, "conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise InvalidRequest("conversations is no list of turns", param="layout")
    messages: list[Row] = []
    called = 0
    for turn in turns:
        said = cell_text(next((turn[key] for key in _SAID if key in turn), None))
        who = next((turn[key] for key in _WHO if key in turn), None)
        if who == "function_call":
            called += 1
            messages.append(_call(said, called))
            continue
        message = {"role": role_of(who), "content": said}
        if message["role"] == "tool" and called:
            message["tool_call_id"] = f"call_{called}"
        if turn.get("weight") is not None:
            message["weight"] = turn["weight"]
        messages.append(message)
    row: Row = {"messages": [*_system(values), *messages]}
    if tools := _tools(values.get("tools")):
        row["tools"] = tools
    return row


def _call(said: str, number: int) -> Row:
    """A turn that calls a function, which ShareGPT writes as the text of a JSON object."""
    try:
        value = json.loads(said)
        name, arguments = value["name"], value.get("arguments", {})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InvalidRequest("a function_call is no JSON with a name", param="layout") from None
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": cell_text(name), "arguments": written}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tools(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = _written_list(value, "tools")
    if value and not isinstance(value, list):
        raise InvalidRequest("tools is no list", param="layout")
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, Mapping) and "function" not in tool
        else tool
        for tool in value or ()
    ]


def _alpaca(values: Mapping[str, Any]) -> Row:
    asked = cell_text(values.get("instruction"))
    more = cell_text(values.get("input", values.get("context")))
    question = f"{asked}\n\n{more}" if more.strip() else asked
    return {
        "messages": [
            *_system(values),
            *_history(values.get("history")),
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": cell_text(values.get("output", values.get("response"))),
            },
        ]
    }


def _history(value: Any) -> list[Row]:
    """Earlier turns: pairs of what was asked and answered."""
    if not value:
        return []
    pairs = value if isinstance(value, list) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise InvalidRequest("history is no list of pairs", param="layout")
    return [
        {"role": role, "content": cell_text(said)}
        for pair in pairs
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]


def _chatml(values: Mapping[str, Any]) -> Row:
    text = cell_text(values.get("text"))
    found = _MARK.findall(text)
    if not found:
        raise InvalidRequest("text holds no <|im_start|>", param="layout")
    if any("<|im_start|>" in said for _, said in found):
        raise InvalidRequest("a turn has no <|im_end|>", param="layout")
    if _BETWEEN.sub("", _MARK.sub("", text)):
        raise InvalidRequest("text stands outside <|im_start|> and <|im_end|>", param="layout")
    return {"messages": [{"role": role_of(role), "content": said} for role, said in found]}


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
        *said, liked = _turns_of(chosen, "chosen")
        *other_said, other = _turns_of(rejected, "rejected")
        if other_said and said and other_said != said:
            raise InvalidRequest("chosen and rejected answer different chats", param="layout")
        return _preferred(_messages(values.get("prompt"), values) or said, liked, other)
    answers = [{"role": "assistant", "content": cell_text(one)} for one in (chosen, rejected)]
    return _preferred(_messages(values.get("prompt"), values) or [], *answers)


def _messages(prompt: Any, values: Mapping[str, Any]) -> list[Row] | None:
    if isinstance(prompt, list):
        return _turns_of(prompt, "prompt")
    if prompt is None:
        return None
    return [*_system(values), {"role": "user", "content": cell_text(prompt)}]


def _turns_of(value: list[Any], name: str) -> list[Row]:
    if not all(isinstance(turn, Mapping) for turn in value):
        raise InvalidRequest(f"{name} is no list of turns", param="layout")
    return [dict(turn) for turn in value]


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
    "converse": _converse,
    "eval": exports.read_eval,
}
_WITH_MORE: Final[Mapping[str, Callable[[Mapping[str, Any], exports.LeftOut], Row]]] = {
    "gemini": exports.read_gemini,
    "chatgpt": exports.read_chatgpt,
    "claude": exports.read_claude,
}
"""Layouts whose records hold what was thought and not said."""
_USED: Final[Mapping[str, frozenset[str]]] = {
    "sharegpt": _TURNS | _BESIDE_TURNS,
    "alpaca": frozenset(
        {"instruction", "input", "output", "system", "history", "context", "response", "id"}
    ),
    "pair": frozenset({"prompt", "completion"}),
    "chatml": frozenset({"text"}),
    "gemini": frozenset({"contents", "systeminstruction", "system_instruction", "tools"}),
    "chatgpt": frozenset({"mapping", "current_node"}),
    "claude": frozenset({"chat_messages", "current_leaf_message_uuid"}),
    "eval": frozenset({"input", "ideal"}),
}
"""The keys that a layout makes something of; layouts that are not here keep all of them."""
LAYOUTS: Final = (*_READERS, *_WITH_MORE, "columns")
