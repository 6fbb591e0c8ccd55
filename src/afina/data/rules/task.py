"""Rules over rows for reinforcement: a question, and what graders compare an answer with."""

from __future__ import annotations

from afina.data.kinds import CHAT_KEYS
from afina.data.rules.row import objects
from afina.data.rules.rule import Fault, Faults, Row


def last_not_user(row: Row) -> Faults:
    roles = [message.get("role") for _, message in objects(row)]
    if roles and roles[-1] != "user":
        yield Fault(
            "The last message is not the user's.",
            message_number=len(row["messages"]),
            field="role",
        )


def no_reference(row: Row) -> Faults:
    if not set(row) - CHAT_KEYS:
        yield Fault("The row has nothing beside its chat, so graders have no item to read.")


def reserved_key(row: Row) -> Faults:
    for key in ("sample", "item"):
        if key in row:
            yield Fault(f'The key "{key}" means something else in a grader.', field=key)
