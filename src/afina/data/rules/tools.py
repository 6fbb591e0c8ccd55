"""Rules over tools: their definitions, the calls of assistants, the answers to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from afina.data.rows import type_name
from afina.data.rules.row import objects
from afina.data.rules.rule import Fault, Faults, Message, Row

MAX_TOOLS: Final = 128


def bad_tools(row: Row) -> Faults:
    for key in ("tools", "functions"):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or not value:
            yield Fault(f'"{key}" is not a list with something in it.', field=key)
            continue
        for place, entry in enumerate(value):
            if problem := _definition_problem(entry, key):
                yield Fault(f"{key}[{place}] {problem}", field=f"{key}[{place}]")


def too_many_functions(row: Row) -> Faults:
    for key in ("tools", "functions"):
        value = row.get(key)
        if isinstance(value, list) and len(value) > MAX_TOOLS:
            yield Fault(f'"{key}" defines {len(value)}; {MAX_TOOLS} is the limit.', field=key)


def undefined_tool(row: Row) -> Faults:
    """A call of a function that the row does not define."""
    defined = {name for key in ("tools", "functions") for name in _defined_names(row.get(key), key)}
    for number, message in objects(row):
        for field, function in _functions(message):
            name = function.get("name")
            if isinstance(name, str) and name not in defined:
                what = "that the row does not define" if defined else "and the row defines none"
                yield Fault(f"A call names a tool {what}.", message_number=number, field=field)


def bad_tool_calls(message: Message) -> Faults:
    single = message.get("function_call")
    if single is not None and (problem := _function_problem(single)):
        yield Fault(f'"function_call" {problem}', field="function_call")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list) or not calls:
        yield Fault('"tool_calls" is not a list with something in it.', field="tool_calls")
        return
    for place, call in enumerate(calls):
        field = f"tool_calls[{place}]"
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            yield Fault(f"{field} has no id.", field=f"{field}.id")
        elif call.get("type") != "function":
            yield Fault(f'{field} is not of type "function".', field=f"{field}.type")
        elif problem := _function_problem(call.get("function")):
            yield Fault(f"{field}.function {problem}", field=f"{field}.function")


def bad_arguments(message: Message) -> Faults:
    for field, function in _functions(message):
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            continue
        try:
            fine = isinstance(json.loads(arguments), dict)
        except (ValueError, RecursionError):
            fine = False
        if not fine:
            yield Fault("The arguments are not a JSON object.", field=f"{field}.arguments")


def missing_tool_call_id(message: Message) -> Faults:
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        yield Fault('"tool_call_id" is missing.', field="tool_call_id")


def unmatched_tool_result(row: Row) -> Faults:
    """An answer to a call that no assistant made before it."""
    called: set[str] = set()
    for number, message in objects(row):
        called |= _call_ids(message)
        identity = message.get("tool_call_id")
        if message.get("role") == "tool" and isinstance(identity, str) and identity not in called:
            yield Fault(
                '"tool_call_id" answers no call that was made before.',
                message_number=number,
                field="tool_call_id",
            )


def unanswered_tool_call(row: Row) -> Faults:
    """A call in the middle of a chat whose answer does not follow."""
    messages = list(objects(row))
    for place, (number, message) in enumerate(messages):
        waiting = _call_ids(message)
        for _, later in messages[place + 1 :]:
            if later.get("role") != "tool":
                break
            waiting.discard(str(later.get("tool_call_id")))
        if waiting and place + 1 < len(messages):
            yield Fault(
                "A call is not answered before the chat goes on.",
                message_number=number,
                field="tool_calls",
            )


def _call_ids(message: Message) -> set[str]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return set()
    return {c["id"] for c in calls if isinstance(c, dict) and isinstance(c.get("id"), str)}


def _functions(message: Message) -> Iterator[tuple[str, dict[str, Any]]]:
    calls = message.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield f"tool_calls[{place}].function", function
    if isinstance(message.get("function_call"), dict):
        yield "function_call", message["function_call"]


def _defined_names(definitions: Any, key: str) -> Iterator[str]:
    for entry in definitions if isinstance(definitions, list) else []:
        function = entry.get("function") if isinstance(entry, dict) and key == "tools" else entry
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"]


def _function_problem(function: Any) -> str | None:
    if not isinstance(function, dict):
        return f"is {type_name(function)}, not an object."
    if not isinstance(function.get("name"), str) or not function["name"]:
        return "has no name."
    if not isinstance(function.get("arguments"), str):
        return "has arguments that are not a string of JSON."
    return None


def _definition_problem(entry: Any, key: str) -> str | None:
    if not isinstance(entry, dict):
        return f"is {type_name(entry)}, not an object."
    function = entry.get("function") if key == "tools" else entry
    if key == "tools" and entry.get("type") != "function":
        return 'is not of type "function".'
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return "has no name."
    if not isinstance(function.get("parameters", {}), dict):
        return "has parameters that are not an object."
    return None
