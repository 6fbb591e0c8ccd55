"""Rules over preference rows: a chat, the answer that was liked, the answer that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from afina.data.kinds import OLD_PREFERENCE_KEYS, PREFERENCE_KEYS
from afina.data.rows import shown, shown_field, type_name
from afina.data.rules.row import ROW_KEYS
from afina.data.rules.rule import Fault, Faults, Row
from afina.data.rules.tools import bad_tools

OUTPUTS: Final = ("preferred_output", "non_preferred_output")
_A_CHAT: Final = (
    'The row is a chat, for the method supervised: ask for it with "method": {"type": '
    '"supervised"}, or write {"input": {"messages": [...]}, "preferred_output": [...], '
    '"non_preferred_output": [...]} on each line.'
)


def missing_preference_key(row: Row) -> Faults:
    for key in ("input", *OUTPUTS):
        if key not in row:
            yield Fault(
                f"is missing key '{key}'.", field=key, remedy=_A_CHAT if "messages" in row else None
            )


def old_preference_key(row: Row) -> Faults:
    for key, new in OLD_PREFERENCE_KEYS.items():
        if key in row:
            yield Fault(f'has "{key}", which is called "{new}".', field=key)


def unknown_preference_key(row: Row) -> Faults:
    for key in row:
        if key not in PREFERENCE_KEYS and key not in OLD_PREFERENCE_KEYS:
            yield Fault(f"contains an extra {shown(key)}.", field=shown_field(key))


def input_not_an_object(row: Row) -> Faults:
    if not isinstance(row["input"], dict):
        yield Fault(f'"input" is {type_name(row["input"])}, not an object.', field="input")


def unknown_input_key(row: Row) -> Faults:
    for key in row["input"]:
        if key not in ROW_KEYS:
            yield Fault(f'"input" contains an extra {shown(key)}.', field=shown_field(key))


def bad_output(row: Row) -> Faults:
    for key in OUTPUTS:
        value = row.get(key)
        if not isinstance(value, list) or len(value) != 1:
            yield Fault(f'"{key}" is not a list of exactly one message.', field=key)
        elif not isinstance(value[0], dict) or value[0].get("role") != "assistant":
            yield Fault(f'"{key}" does not hold a message of the assistant.', field=key)
        elif value[0].get("tool_calls") or value[0].get("function_call"):
            yield Fault(
                f'"{key}" calls a tool; preferences are learned from text alone.', field=key
            )


def same_outputs(row: Row) -> Faults:
    preferred, other = row.get(OUTPUTS[0]), row.get(OUTPUTS[1])
    if preferred is not None and preferred == other:
        yield Fault("Both answers are the same.", field=OUTPUTS[1])


def input_ends_with_answer(row: Row) -> Faults:
    messages = row["input"]["messages"]
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last.get("role") == "assistant":
        yield Fault(
            "The input ends with an answer already.",
            message_number=len(messages),
            field="input.messages",
        )


def inside_input(find: Callable[[Any], Faults]) -> Callable[[Any], Faults]:
    """A rule over chats as a rule over the chat in `input`."""

    def find_inside(row: Row) -> Faults:
        for fault in find(row["input"]):
            field = f"input.{fault.field}" if fault.field else None
            yield Fault(fault.message, fault.message_number, field)

    return find_inside


def bad_input_tools(chat: Row) -> Faults:
    """As in a chat; but an empty list, as OpenAI's own example of such a row has, is no tools."""
    yield from bad_tools({key: value for key, value in chat.items() if value != []})


def messages_of_preference(row: Row) -> Iterator[tuple[int | None, str, dict[str, Any]]]:
    """Number, the field's prefix and the message: those of the input, then the two answers."""
    for number, message in enumerate(row["input"]["messages"], 1):
        if isinstance(message, dict):
            yield number, "", message
    for key in OUTPUTS:
        value = row.get(key)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            yield None, f"{key}[0].", value[0]
