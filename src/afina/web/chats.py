"""A training row as its reader sees it: who says what, whatever kind of row it is.

Nothing here is a rule of the check: a row of a wrong form is shown as far as it can be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

PREFERRED: Final = "preferred"
REJECTED: Final = "rejected"


def plain_messages(value: Mapping[str, Any] | None) -> list[dict[str, str]] | None:
    """The messages of a plain chat; None for anything that is more than roles and texts."""
    found = value.get("messages") if value else None
    if not isinstance(found, list) or set(value or ()) != {"messages"} or not found:
        return None
    for message in found:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return None
        if not all(isinstance(text, str) for text in message.values()):
            return None
    return found


def shown_messages(value: Mapping[str, Any] | None) -> list[dict[str, str]] | None:
    """What is said in a chat with calls, pictures or weights, or in a pair of answers; None where
    nothing can be read as said."""
    if not value:
        return None
    if "preferred_output" in value:
        asked = value.get("input")
        said = _said(asked.get("messages") if isinstance(asked, Mapping) else None)
        liked = _said(value["preferred_output"], PREFERRED)
        return said + liked + _said(value.get("non_preferred_output"), REJECTED) or None
    return _said(value.get("messages")) or None


def readable_json(text: str) -> str:
    """A row's JSON with a line for each of its parts, to be edited; as it is where it is none."""
    try:
        found = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
        found.encode()
    except ValueError:  # no JSON, or half a character, which only an escape can carry
        return text
    return found


def _said(messages: Any, role: str | None = None) -> list[dict[str, str]]:
    if not isinstance(messages, list):
        return []
    return [
        {"role": role or str(message.get("role", "")), "content": _text(message)}
        for message in messages
        if isinstance(message, Mapping)
    ]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    calls = message.get("tool_calls")
    texts += [_call(call) for call in calls] if isinstance(calls, list) else []
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _call(call: Any) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return ""
    return f"{function.get('name', '')}({function.get('arguments', '')})"
