"""Tools for models whose template knows none, as text in system, assistant and user turns.

The same text is written in training and in serving; `FORMAT` is its id, part of the template's
hash and stored with every tuned model. A change of any word here is a new id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

FORMAT: Final = "afina-tools-1"

_INTRODUCTION: Final = (
    "You can call these tools. Each line describes one as JSON:\n<tools>\n{definitions}\n</tools>\n"
    "To call a tool, write its name and arguments as JSON, each call on a line of its own:\n"
    '<tool_call>{{"name": "…", "arguments": {{…}}}}</tool_call>'
)


OWN_CALL: Final = ('<tool_call>{"name": "', '", "arguments": ', "}</tool_call>")
"""What stands before a call's name, between name and arguments, and after the arguments."""


def definitions_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """What the system message says of the tools."""
    lines = (_json(tool.get("function", tool)) for tool in tools)
    return _INTRODUCTION.format(definitions="\n".join(lines))


def calls_text(content: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """An assistant's turn: what it says, then its calls."""
    before, middle, after = OWN_CALL
    lines = [
        before + _json(call["name"])[1:-1] + middle + _json(call["arguments"]) + after
        for call in calls
    ]
    return "\n".join([content, *lines] if content else lines)


def response_text(content: str) -> str:
    """A tool's answer, inside a user's turn."""
    return f"<tool_response>\n{content}\n</tool_response>"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
