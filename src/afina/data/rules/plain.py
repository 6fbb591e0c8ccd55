"""A quick yes for rows that are plainly good, so that the rules need not run one by one.

It knows only the commonest shape (texts of system, user and assistant, the last one learned or
another before it) and says no to everything else; the rules then decide. A property test holds
that it never says yes where a rule would find something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

_QUOTE, _BACKSLASH, _OPENS, _CLOSES = b'"\\{}'


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
    """Whether no rule over lines, rows or messages can find anything in the line `raw`."""
    return b"\n" not in raw and are_plainly_good(raw, [raw])


def are_plainly_good(text: bytes, lines: Sequence[bytes]) -> bool:
    """Whether every line of `text` is plainly good; `lines` is the text split at LF. Some hundred
    lines at a time cost half of what each alone does.

    A key that stands twice is found by writing the rows again: then quotation marks are missing.
    """
    # No line can be part of a value, or hold two of them: inside a value no `}` is followed by `{`.
    if not all(line and line[0] == _OPENS and line[-1] == _CLOSES for line in lines):
        return False
    characters = np.frombuffer(text, np.uint8)
    if _may_escape_quotes(characters):
        return False
    try:
        rows = _DECODER.decode_lines(text)
        again = np.frombuffer(_ENCODER.encode_lines(rows), np.uint8)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
    if np.count_nonzero(characters == _QUOTE) != np.count_nonzero(again == _QUOTE):
        return False
    return len(rows) == len(lines) and all(map(_teaches, rows))


def _may_escape_quotes(characters: NDArray[np.uint8]) -> bool:
    r"""Whether there may be a \u0022, which is written again as another number of marks."""
    at = np.flatnonzero(characters == _BACKSLASH)
    at = at[at < len(characters) - 5]
    u, last = characters[at + 1] == ord("u"), characters[at + 5] == ord("2")
    return bool((u & last & (characters[at + 4] == ord("2"))).any())


def _teaches(row: _Row) -> bool:
    """Whether every message says something, and the last is an answer of which one is learned."""
    messages = row.messages
    if not messages or type(messages[-1]) is not _Assistant:
        return False
    learns = False
    for message in messages:
        content = message.content
        if not content or content.isspace():
            return False
        if type(message) is _Assistant and message.weight != 0:
            learns = True
    return learns
