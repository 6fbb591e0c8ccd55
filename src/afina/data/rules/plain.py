"""A quick yes for rows that are plainly good, so that the rules need not run one by one.

It knows only the commonest shape (texts of system, user and assistant, the last one learned or
another before it) and says no to everything else; the rules then decide. A property test holds
that it never says yes where a rule would find something.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class _System(msgspec.Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str


class _User(msgspec.Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str


class _Assistant(msgspec.Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str
    weight: Literal[0, 1] | msgspec.UnsetType = msgspec.UNSET


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_System | _User | _Assistant]


_DECODER: Final = msgspec.json.Decoder(_Row)
_ENCODER: Final = msgspec.json.Encoder()


def is_plainly_good(raw: bytes) -> bool:
    """Whether no rule over lines, rows or messages can find anything in the line `raw`.

    A key that stands twice is found by writing the row again: then there are fewer quotation marks.
    """
    try:
        row = _DECODER.decode(raw)
        if raw.count(b'"') != _ENCODER.encode(row).count(b'"') or rb"\u0022" in raw:
            return False
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
    messages = row.messages
    if not messages or not isinstance(messages[-1], _Assistant):
        return False
    learns = False
    for message in messages:
        content = message.content
        if not content or content.isspace():
            return False
        if isinstance(message, _Assistant) and message.weight != 0:
            learns = True
    return learns
