"""Chats as other services keep or take them, each record read into a row of ours; none is written.

gemini    {"contents": [{"role": "user", "parts": [{"text": ...}]}, ...], "systemInstruction"?: ...,
          "tools"?: ...}, what Vertex AI tunes on
converse  {"messages": [{"role": ..., "content": [{"text": ...}]}], "system": a text or texts,
          "schemaVersion"?: ...}, what Amazon Bedrock tunes on and Anthropic's API takes
chatgpt   {"mapping": {id: {"message": ..., "parent": id}}, "current_node": id}, a conversation of
          ChatGPT's export (conversations.json): the branch that its user saw last
claude    {"chat_messages": [{"sender": "human", "text": ...}, ...]}, one of Claude's export; where
          its messages name their parents, the branch that its user saw last
eval      {"input": [messages], "ideal": ...}, of OpenAI's evals

What no row can hold (pictures, attachments, steps of a built-in tool) is refused by its kind, never
left out of a conversation without a word. What its reader did not see said (thinking, a user's
standing instructions) is no part of the answer: it is left out, and counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from afina.data.cells import cell_text
from afina.errors import InvalidRequest

Row = dict[str, Any]
_PARENT: Final = "parent_message_uuid"
_KIND: Final = re.compile(r"[A-Za-z_]{1,40}")
THINKING: Final = "thinking"
CONTEXT: Final = "context"
LeftOut = Counter[str]
"""How often something was left out of a record that was read, by the name of its remark."""
_UNSAID: Final = {
    "thoughts": THINKING,
    "reasoning_recap": THINKING,
    "user_editable_context": CONTEXT,
    "model_editable_context": CONTEXT,
}
"""Contents of ChatGPT's export that stand in no bubble."""
_HELD: Final = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
"""What a part of Gemini's may be, one of them at a time."""
_SPEAKERS: Final = {"user": "user", "human": "user", "model": "assistant", "assistant": "assistant"}


def read_gemini(values: Mapping[str, Any], left_out: LeftOut) -> Row:
    """Raises InvalidRequest."""
    open_calls: list[tuple[str, str]] = []
    calls = 0
    messages = _system(values.get("systeminstruction", values.get("system_instruction")))
    for turn in _turns(values.get("contents"), "contents"):
        texts: list[str] = []
        asked: list[Row] = []
        for part in _parts(turn.get("parts"), "parts"):
            if part.get("thought") is True:
                left_out[THINKING] += 1
                continue
            _refuse_two(part)
            if isinstance(called := part.get("functionCall"), Mapping):
                asked.append(_call(called, calls))
                open_calls.append((asked[-1]["function"]["name"], asked[-1]["id"]))
                calls += 1
            elif isinstance(back := part.get("functionResponse"), Mapping):
                messages.append(_answered(back, open_calls))
            else:
                texts.append(_part_text(part))
        if texts or asked:
            said: Row = {"role": _speaker(turn.get("role")), "content": "".join(texts) or None}
            messages.append(said | ({"tool_calls": asked} if asked else {}))
    row: Row = {"messages": messages}
    if tools := list(_declared(values.get("tools"))):
        row["tools"] = tools
    return row


def system_in_front(system: Any, messages: list[Any]) -> list[Any]:
    """A chat's messages with the system text that stands beside them, and parts without a type
    as the texts they are. Raises InvalidRequest."""
    first = messages[0] if messages else None
    before = _system(system)
    if before and isinstance(first, Mapping) and first.get("role") in ("system", "developer"):
        raise _no("a system text stands beside messages that begin with one")
    return [*before, *map(_with_text, messages)]


def read_chatgpt(values: Mapping[str, Any], left_out: LeftOut) -> Row:
    """Raises InvalidRequest."""
    mapping = values.get("mapping")
    if not isinstance(mapping, Mapping):
        raise _no("mapping is no object of messages")
    branch = list(_branch(mapping, values.get("current_node")))
    messages = [said for node in reversed(branch) if (said := _bubble(node, left_out)) is not None]
    if not messages:
        raise _no("a conversation in which nobody says anything")
    return {"messages": messages}


def read_claude(values: Mapping[str, Any], left_out: LeftOut) -> Row:
    """Raises InvalidRequest."""
    messages = []
    turns = _turns(values.get("chat_messages"), "chat_messages")
    for turn in _seen_last(turns, values.get("current_leaf_message_uuid")):
        if turn.get("attachments") or turn.get("files") or turn.get("files_v2"):
            raise _no("a message has files with it, which no row can hold")
        content = turn.get("content")
        if isinstance(content, list):
            said_parts = [part for part in content if not _is_thinking(part)]
            left_out[THINKING] += len(content) - len(said_parts)
            content = said_parts
        said = _text(content) if content else cell_text(turn.get("text"))
        messages.append({"role": _speaker(turn.get("sender")), "content": said})
    return {"messages": messages}


def read_eval(values: Mapping[str, Any]) -> Row:
    """Raises InvalidRequest."""
    asked, ideal = values.get("input"), values.get("ideal")
    if isinstance(ideal, list):
        if len(ideal) != 1:
            raise _no("ideal lists several answers, and a row has one")
        ideal = ideal[0]
    if isinstance(asked, list):
        messages = [dict(turn) for turn in _turns(asked, "input")]
    else:
        messages = [{"role": "user", "content": cell_text(asked)}]
    return {"messages": [*messages, {"role": "assistant", "content": cell_text(ideal)}]}


def _with_text(turn: Any) -> Any:
    content = turn.get("content") if isinstance(turn, Mapping) else None
    return {**turn, "content": _text(content)} if isinstance(content, list) else turn


# -- parts ----------------------------------------------------------------------------------------


def _no(what: str) -> InvalidRequest:
    return InvalidRequest(what, param="layout")


def _turns(value: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise _no(f"{name} is no list of turns")
    return value


def _refuse_two(part: Mapping[str, Any]) -> None:
    """One part is one thing: of two, one would be left out."""
    held = [name for name in _HELD if part.get(name) not in (None, "")]
    if len(held) > 1:
        raise _no(f"a part is two things at once ({held[0]}, {held[1]})")


def _parts(value: Any, name: str) -> list[Mapping[str, Any]]:
    """A turn's parts; a single one may stand without its list."""
    found = [value] if isinstance(value, Mapping) else value
    if not isinstance(found, list) or not all(isinstance(part, Mapping) for part in found):
        raise _no(f"{name} is no list of parts")
    return found


def _speaker(name: Any) -> str:
    plain = cell_text(name).strip().lower()
    return _SPEAKERS.get(plain, plain)


def _system(value: Any) -> list[Row]:
    """A system text of its own: a string, parts, or what holds parts."""
    if isinstance(value, Mapping) and "parts" in value:
        value = value["parts"]
    text = "" if value is None else _text(value)
    return [{"role": "system", "content": text}] if text else []


def _text(value: Any) -> str:
    """A string, or parts that are all text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        value = [{"text": part} if isinstance(part, str) else part for part in value]
    return "".join(map(_part_text, _parts(value, "content")))


def _part_text(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, str) and part.get("type", "text") == "text":
        return text
    kinds = [part.get("type"), part.get("content_type"), *part]
    raise _no(f"a message holds what is no text{_named(kinds)}")


def _named(kinds: list[Any]) -> str:
    """The kind of a part, if its name is one: never a text of the user's."""
    found = (k for k in kinds if isinstance(k, str) and k != "text" and _KIND.fullmatch(k))
    kind = next(found, "")
    return f" ({kind})" if kind else ""


def _is_thinking(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("thinking", "redacted_thinking")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _call(called: Mapping[str, Any], number: int) -> Row:
    name = called.get("name")
    if not isinstance(name, str):
        raise _no("a functionCall has no name")
    function = {"name": name, "arguments": _written(called.get("args") or {})}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _answered(back: Mapping[str, Any], open_calls: list[tuple[str, str]]) -> Row:
    """Gemini's calls have no ids: an answer belongs to the first open call of its name."""
    name = back.get("name")
    place = next((i for i, (called, _) in enumerate(open_calls) if called == name), None)
    if place is None:
        raise _no("a functionResponse answers no functionCall before it")
    _, id_ = open_calls.pop(place)
    return {"role": "tool", "tool_call_id": id_, "content": _written(back.get("response"))}


def _declared(tools: Any) -> Iterator[Row]:
    """Gemini's declarations of functions as ours; a single tool may stand without its list."""
    for tool in () if tools is None else _parts(tools, "tools"):
        declared = tool.get("functionDeclarations", tool.get("function_declarations"))
        if not isinstance(declared, list):
            raise _no(f"a tool that is no function{_named(list(tool))}")
        for function in declared:
            yield {"type": "function", "function": _lowered(function)}


def _lowered(schema: Any) -> Any:
    """A JSON schema whose types Gemini writes in capitals."""
    if isinstance(schema, Mapping):
        return {
            key: value.lower() if key == "type" and isinstance(value, str) else _lowered(value)
            for key, value in schema.items()
        }
    return [_lowered(one) for one in schema] if isinstance(schema, list) else schema


# -- the tree of a conversation -------------------------------------------------------------------


def _branch(mapping: Mapping[str, Any], leaf: Any) -> Iterator[Mapping[str, Any]]:
    """Nodes from the last one that its user saw up to the first."""
    node = leaf if isinstance(leaf, str) and leaf in mapping else _last_leaf(mapping)
    seen = set()
    while isinstance(node, str) and node in mapping and node not in seen:
        seen.add(node)
        value = mapping[node]
        if not isinstance(value, Mapping):
            raise _no("mapping is no object of messages")
        yield value
        node = value.get("parent")


def _seen_last(turns: list[Mapping[str, Any]], leaf: Any) -> list[Mapping[str, Any]]:
    """Of messages that name their parents, those that lead to the leaf, or else to the last one:
    an answer that was asked for again stands beside the other. All of them where they name none."""
    known = {turn["uuid"]: turn for turn in turns if isinstance(turn.get("uuid"), str)}
    if not turns or len(known) < len(turns):
        return turns
    branch: list[Mapping[str, Any]] = []
    node = leaf if isinstance(leaf, str) and leaf in known else turns[-1]["uuid"]
    while isinstance(node, str) and node in known:
        branch.append(known.pop(node))
        node = branch[-1].get(_PARENT)
    is_whole = len(branch) > 1 and node == turns[0].get(_PARENT)
    return branch[::-1] if is_whole else turns


def _last_leaf(mapping: Mapping[str, Any]) -> str | None:
    leaves = [k for k, n in mapping.items() if isinstance(n, Mapping) and not n.get("children")]
    return leaves[-1] if leaves else None


def _bubble(node: Mapping[str, Any], left_out: LeftOut) -> Row | None:
    """What a node says to its reader; None where it says nothing."""
    message = node.get("message")
    if not isinstance(message, Mapping):
        return None
    content, author = message.get("content"), message.get("author")
    content = content if isinstance(content, Mapping) else {}
    role = author.get("role") if isinstance(author, Mapping) else None
    kind = content.get("content_type")
    about = message.get("metadata")
    if isinstance(about, Mapping) and about.get("is_visually_hidden_from_conversation"):
        return None
    if isinstance(kind, str) and kind in _UNSAID:
        left_out[_UNSAID[kind]] += 1
        return None
    if role == "tool" or message.get("recipient") not in (None, "all"):
        raise _no("a conversation with steps of a built-in tool, which no row can hold")
    if kind not in ("text", "multimodal_text"):
        raise _no(f"a message holds what is no text{_named([kind])}")
    text = _text(content.get("parts") or [])
    if not text and role != "user":
        return None
    return {"role": _speaker(role), "content": text}
