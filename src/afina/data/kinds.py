"""The kinds of rows that training files hold, and each kind as a typed value.

    chat               {"messages": [...], "tools"?, ...}, the last message the assistant's
    prompt_completion  {"prompt": "...", "completion": "..."}, raw text without a template
    preference         {"input": {"messages": [...]}, "preferred_output": [one answer],
                        "non_preferred_output": [one answer]}
    rft                {"messages": [...], ...}: the last message the user's, other keys for graders

A file holds rows of one kind. The readers here take rows that passed the check; what they meet
otherwise is a LookupError or TypeError of the caller's making.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from afina.data.rows import Messages, Tools, chat_of

Message = Mapping[str, Any]
Row = Mapping[str, Any]


class RowKind(enum.StrEnum):
    """What the rows of a file are."""

    CHAT = "chat"
    PROMPT_COMPLETION = "prompt_completion"
    PREFERENCE = "preference"
    RFT = "rft"


KINDS_OF_METHOD: Final[Mapping[str, tuple[RowKind, ...]]] = {
    "supervised": (RowKind.CHAT, RowKind.PROMPT_COMPLETION),
    "dpo": (RowKind.PREFERENCE,),
    "reinforcement": (RowKind.RFT,),
}
"""The kinds that a job's method can train on; the first one is what its errors ask for."""

CHAT_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
PREFERENCE_KEYS: Final = frozenset({"input", "preferred_output", "non_preferred_output"})
OLD_PREFERENCE_KEYS: Final[Mapping[str, str]] = {
    "preferred_completion": "preferred_output",
    "non_preferred_completion": "non_preferred_output",
}
"""Names that OpenAI's specification had for a while and its service never took."""


@dataclass(frozen=True)
class Pair:
    """Raw text: loss is on the completion alone."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Preference:
    """One question and two answers, the first of which people liked better."""

    messages: Messages
    tools: Tools
    preferred: Message
    rejected: Message

    def chats(self) -> tuple[tuple[Messages, Tools], tuple[Messages, Tools]]:
        """The chat with the preferred answer, and that with the other one; in both only the last
        answer is to be learned."""
        before = [
            {**message, "weight": 0} if message.get("role") == "assistant" else message
            for message in self.messages
        ]
        return ([*before, self.preferred], self.tools), ([*before, self.rejected], self.tools)


@dataclass(frozen=True)
class Task:
    """A question for reinforcement; `item` is what graders read as `item.*`."""

    messages: Messages
    tools: Tools
    item: Mapping[str, Any]


def kind_of_row(row: Any) -> RowKind | None:
    """What a JSON value looks like by its keys alone; None where nothing fits."""
    if not isinstance(row, dict):
        return None
    if "preferred_output" in row or "preferred_completion" in row:
        return RowKind.PREFERENCE
    if "input" in row and "instruction" not in row:  # with both it is a row of Alpaca's
        return RowKind.PREFERENCE
    if "messages" in row:
        messages = row["messages"]
        last = messages[-1] if isinstance(messages, list) and messages else None
        answered = not isinstance(last, dict) or last.get("role") != "user"
        return RowKind.CHAT if answered or not set(row) - CHAT_KEYS else RowKind.RFT
    if "prompt" in row or "completion" in row:
        return RowKind.PROMPT_COMPLETION
    return None


def kind_of_file(first: Any, allowed: Sequence[RowKind] | None) -> RowKind:
    """The kind that a file is held against, by its first row and what a job may use. Where the row
    is of no such kind, the first that is allowed: its rules then say what is missing."""
    seen = kind_of_row(first)
    if allowed is None:
        return seen or RowKind.CHAT
    if allowed == (RowKind.RFT,):
        return RowKind.RFT
    return seen if seen is not None and seen in allowed else allowed[0]


def read_pair(row: Row) -> Pair:
    """A prompt_completion row; a missing or null prompt is an empty one."""
    return Pair(row.get("prompt") or "", row["completion"])


def read_preference(row: Row) -> Preference:
    """A preference row."""
    messages, tools = chat_of(row["input"])
    return Preference(messages, tools, row["preferred_output"][0], row["non_preferred_output"][0])


def read_task(row: Row) -> Task:
    """An RFT row."""
    messages, tools = chat_of(row)
    return Task(messages, tools, {k: v for k, v in row.items() if k not in CHAT_KEYS})


def chats_of(kind: RowKind, row: Row) -> tuple[tuple[Messages, Tools], ...]:
    """The chats that a row is rendered as: one, or two for a preference; none for raw text."""
    if kind is RowKind.PREFERENCE:
        return read_preference(row).chats()
    return () if kind is RowKind.PROMPT_COMPLETION else (chat_of(row),)
