"""Chats of many turns from a table with a turn, or a question and its answer, in each record.

Records with the same value in a column are one conversation, in the order in which they stand. All
conversations are held in memory, as their records need not stand together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from afina.data.cells import cell_text
from afina.data.columns import listed
from afina.data.layouts import role_of
from afina.errors import InvalidRequest

_ROLE_COLUMNS: Final = ("role", "speaker", "author", "from", "sender", "who")
_TEXT_COLUMNS: Final = ("content", "text", "message", "value", "body", "utterance")


@dataclass(frozen=True)
class LogColumns:
    """Where a log of messages has its conversation, its speaker and its text."""

    group: str
    role: str
    text: str


def log_columns(columns: Sequence[str], group: str) -> LogColumns | None:
    """The columns of a log of single messages; None where rows hold question and answer. Raises
    InvalidRequest where there is no column `group`."""
    by_name = {column.strip().lower(): column for column in columns}
    found = by_name.get(group.strip().lower())
    if found is None:
        raise InvalidRequest(
            f"There is no column {group!r} for --group.",
            param="group",
            remedy=listed(columns),
        )
    role = next((by_name[name] for name in _ROLE_COLUMNS if name in by_name), None)
    text = next((by_name[name] for name in _TEXT_COLUMNS if name in by_name), None)
    return LogColumns(found, role, text) if role and text else None


def log_message(values: Mapping[str, Any], columns: LogColumns) -> dict[str, Any]:
    """A record of a log as a message."""
    return {
        "role": role_of(values.get(columns.role)),
        "content": cell_text(values.get(columns.text)),
    }


def grouped(items: Iterable[tuple[str, list[dict[str, Any]]]]) -> list[list[dict[str, Any]]]:
    """Messages of each conversation, conversations in the order in which they begin. A system
    message that stands in every record is kept once."""
    chats: dict[str, list[dict[str, Any]]] = {}
    for name, messages in items:
        chat = chats.setdefault(name, [])
        repeated = bool(chat) and messages[:1] == chat[:1] and chat[0]["role"] == "system"
        chat += messages[1:] if repeated else messages
    return list(chats.values())
