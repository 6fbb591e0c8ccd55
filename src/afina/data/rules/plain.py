"""A quick yes for rows that are plainly good, so that the rules need not run one by one.

It knows only the commonest shape (texts of system, user and assistant, the last one learned or
another before it) and says no to everything else; the rules then decide. A property test holds
that it never says yes where a rule would find something.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class _System(msgspec.Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str


class _User(msgspec.Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str


class _Assistant(msgspec.Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str
    weight: Literal[0, 1] = 1


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_System | _User | _Assistant]


def is_plainly_good(value: Any) -> bool:
    """Whether no rule over rows or messages can find anything in `value`."""
    try:
        messages = msgspec.convert(value, _Row).messages
    except msgspec.ValidationError:
        return False
    if not messages or not isinstance(messages[-1], _Assistant):
        return False
    if any(not m.content or m.content.isspace() for m in messages):
        return False
    return any(isinstance(m, _Assistant) and m.weight == 1 for m in messages)
