"""Rules over a row: an object with messages that an assistant's answer can be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from afina.data.kinds import PREFERENCE_KEYS
from afina.data.rows import shown, shown_field, type_name
from afina.data.rules.rule import Fault, Faults, Message, Row

ROW_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
_PREFERENCES: Final = (
    'The row is a preference, for the method dpo: ask for it with "method": {"type": "dpo"}, or '
    "give a file of chats."
)


def objects(row: Row) -> Iterator[tuple[int, Message]]:
    """The messages that are objects, with their numbers from 1."""
    for number, message in enumerate(row["messages"], 1):
        if isinstance(message, dict):
            yield number, message


def not_an_object(row: Any) -> Faults:
    if not isinstance(row, dict):
        yield Fault(f"The line is {type_name(row)}, not an object.")


def missing_messages(row: Row) -> Faults:
    if "messages" not in row:
        remedy = _PREFERENCES if row.keys() >= PREFERENCE_KEYS else None
        yield Fault("is missing key 'messages'.", field="messages", remedy=remedy)


def messages_not_a_list(row: Row) -> Faults:
    if not isinstance(row["messages"], list):
        yield Fault(f'"messages" is {type_name(row["messages"])}, not a list.', field="messages")


def no_messages(row: Row) -> Faults:
    if not row["messages"]:
        yield Fault('"messages" is an empty list.', field="messages")


def unknown_row_key(row: Row) -> Faults:
    for key in row:
        if key not in ROW_KEYS:
            yield Fault(f"contains an extra {shown(key)}.", field=shown_field(key))


def message_not_an_object(row: Row) -> Faults:
    for number, message in enumerate(row["messages"], 1):
        if not isinstance(message, dict):
            yield Fault(f"is {type_name(message)}, not an object.", message_number=number)


def no_assistant_message(row: Row) -> Faults:
    if all(message.get("role") != "assistant" for _, message in objects(row)):
        yield Fault("No message is the assistant's.", field="messages")


def last_not_assistant(row: Row) -> Faults:
    roles = [message.get("role") for _, message in objects(row)]
    if "assistant" in roles and roles[-1] != "assistant":
        yield Fault(
            "The last message is not the assistant's.",
            message_number=len(row["messages"]),
            field="role",
        )


def nothing_learned(row: Row) -> Faults:
    answers = [m for _, m in objects(row) if m.get("role") == "assistant"]
    if answers and all(m.get("weight", 1) == 0 and m.get("weight") is not False for m in answers):
        yield Fault("Every assistant message has weight 0.", field="weight")


def bad_parallel_flag(row: Row) -> Faults:
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        yield Fault(
            f'"parallel_tool_calls" is {type_name(row["parallel_tool_calls"])}, not a boolean.',
            field="parallel_tool_calls",
        )
