"""Messages of the wire API as messages that a template can write.

Content parts become text, roles that a template does not know become ones that it does, calls
and results of tools become text where the template knows no tools. What cannot be written is an
InvalidRequest that names the field; nothing is left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from afina.errors import InvalidRequest, UnsupportedField
from afina.text import tools as tool_text

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_SPEAKING: Final = ("system", "developer", "user", "assistant")
_RESULTS: Final = ("tool", "function")

Message = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """What a template knows."""

    native_tools: bool
    developer: bool


@dataclass(frozen=True)
class Conversation:
    """A chat as the template takes it. `learned` says of each message whether it carries loss."""

    messages: list[Message]
    tools: list[Message] | None
    learned: list[bool]

    @property
    def uses_tools(self) -> bool:
        return self.tools is not None or any("tool_calls" in m for m in self.messages)


def read_conversation(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    dialect: Dialect,
) -> Conversation:
    """`messages` and `tools` in a template's dialect. Raises InvalidRequest with `param`."""
    if not messages:
        raise InvalidRequest("messages is empty.", param="messages", remedy="Give at least one.")
    plain = None if tools else _plain(messages, dialect)
    if plain is not None:
        return plain
    for place, tool in enumerate(tools or ()):
        if not isinstance(tool, Mapping):
            raise InvalidRequest(f"tools[{place}] is not an object.", param=f"tools[{place}]")
    read = [_read_message(message, number) for number, message in enumerate(messages)]
    for message in read:
        if message["role"] == "developer" and not dialect.developer:
            message["role"] = "system"
    learned = [
        message["role"] == "assistant" and source.get("weight", 1) != 0
        for message, source in zip(read, messages, strict=True)
    ]
    _sort_results(read)
    if dialect.native_tools:
        return Conversation(
            [_native(message) for message in read],
            [dict(t) for t in tools] if tools else None,
            learned,
        )
    return _without_tools(read, tools, learned)


def _plain(messages: Sequence[Mapping[str, Any]], dialect: Dialect) -> Conversation | None:
    """The same for what most chats are, texts said by three roles, in a fraction of the time; None
    for everything else."""
    read: list[Message] = []
    learned: list[bool] = []
    for message in messages:
        if not isinstance(message, dict) or len(message) - ("weight" in message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if role not in _SPEAKING or not isinstance(content, str):
            return None
        known = "system" if role == "developer" and not dialect.developer else role
        read.append({"role": known, "content": content})
        learned.append(role == "assistant" and message.get("weight", 1) != 0)
    return Conversation(read, None, learned)


def map_strings(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    """The conversation with `change` applied to every string that a user wrote."""
    messages = [
        {key: value if key == "role" else _map(value, change) for key, value in message.items()}
        for message in conversation.messages
    ]
    tools = None if conversation.tools is None else [_map(t, change) for t in conversation.tools]
    return Conversation(messages, tools, conversation.learned)


def strings(conversation: Conversation) -> list[str]:
    """Every string that a user wrote."""
    found: list[str] = []
    for message in conversation.messages:
        content = message.get("content")
        if isinstance(content, str) and len(message) == 2:  # role and content: nearly always
            found.append(content)
        else:
            _collect([v for k, v in message.items() if k != "role"], found)
    if conversation.tools:
        _collect(conversation.tools, found)
    return found


def _map(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map(item, change) for item in value]
    return value


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            found.append(key)
            _collect(item, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)


def _read_message(message: Mapping[str, Any], number: int) -> Message:
    where = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"{where} is not an object.", param=where)
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRequest(
            f"{where}.role must be one of {', '.join(ROLES)}.", param=f"{where}.role"
        )
    calls = _read_calls(message, where) if role == "assistant" else []
    content = message.get("content")
    if content is None and role == "assistant" and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    read: Message = {"role": role, "content": _read_content(content, where, bool(calls))}
    if calls:
        read["calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            read[key] = message[key]
    return read


def _sort_results(messages: list[Message]) -> None:
    """Puts results of tools into the order of their calls: most templates write no ids, so that
    their order alone tells which call each answers."""
    start = 0
    while start < len(messages):
        calls = messages[start].get("calls") or ()
        start += 1
        end = start
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        places = {call["id"]: place for place, call in reversed(list(enumerate(calls)))}
        if len(places) > 1 and end - start > 1:
            # Whatever answers no call of this turn stays behind those that do.
            messages[start:end] = sorted(
                messages[start:end], key=lambda m: places.get(m.get("tool_call_id"), len(calls))
            )
        start = end


def _read_content(content: Any, where: str, may_be_null: bool) -> str:
    if isinstance(content, str):
        return content
    param = f"{where}.content"
    if content is None and may_be_null:
        return ""
    if not isinstance(content, list | tuple):
        raise InvalidRequest(
            f"{param} must be a string or a list of text parts.",
            param=param,
            remedy="Only an assistant's message with tool_calls may have null.",
        )
    texts = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(kind) if isinstance(part, Mapping) and kind in ("text", "refusal") else None
        if not isinstance(text, str):
            raise UnsupportedField(
                f"{param}[{place}] is a part of type {kind!r}; afina takes text parts only.",
                param=f"{param}[{place}].type",
                remedy="Leave the part out, or say in words what it shows.",
            )
        texts.append(text)
    return "".join(texts)


def _read_calls(message: Mapping[str, Any], where: str) -> list[Message]:
    calls = []
    single = message.get("function_call")
    listed = message.get("tool_calls") or ([{"function": single}] if single else [])
    for place, call in enumerate(listed):
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if function is None or not isinstance(name, str):
            param = f"{where}.tool_calls[{place}].function"
            raise InvalidRequest(f"{param} must have a name and arguments.", param=param)
        calls.append(
            {"id": call.get("id"), "name": name, "arguments": _arguments(function.get("arguments"))}
        )
    return calls


def _arguments(value: Any) -> Any:
    """Arguments as a value; the wire has them as a string of JSON."""
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _native(message: Message) -> Message:
    calls = message.pop("calls", None)
    if calls:
        message["tool_calls"] = [
            {
                "type": "function",
                **({"id": call["id"]} if call["id"] else {}),
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in calls
        ]
    if message["role"] == "function":
        message["role"] = "tool"
    return message


def _without_tools(
    messages: list[Message], tools: Sequence[Mapping[str, Any]] | None, learned: list[bool]
) -> Conversation:
    """Definitions into the system message, calls into the assistant's text, results into user
    turns; results in a row share one turn."""
    written: list[Message] = []
    kept: list[bool] = []
    previous = ""
    for message, learns in zip(messages, learned, strict=True):
        role, content = message["role"], message["content"]
        if role in _RESULTS:
            content = tool_text.response_text(content)
            if previous in _RESULTS:
                written[-1]["content"] += "\n" + content
                continue
            written.append({"role": "user", "content": content})
        else:
            if "calls" in message:
                content = tool_text.calls_text(content, message["calls"])
            named = {"name": message["name"]} if "name" in message else {}
            written.append({"role": role, "content": content, **named})
        kept.append(learns)
        previous = role
    if tools:
        text = tool_text.definitions_text(tools)
        if written[0]["role"] in ("system", "developer"):
            written[0]["content"] += "\n\n" + text
        else:
            written.insert(0, {"role": "system", "content": text})
            kept.insert(0, False)
    return Conversation(written, None, kept)
