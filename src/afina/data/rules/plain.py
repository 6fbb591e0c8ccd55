"""A quick yes for rows that are plainly good, so that the rules need not run one by one.

It knows only the commonest shapes (chats of texts whose last message is an answer, prompts with
completions, preferences between two texts) and says no to everything else; the rules then decide. A
property test holds that it never says yes where a rule would find something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from afina.data.kinds import RowKind

_QUOTE, _BACKSLASH, _OPENS, _CLOSES = b'"\\{}'


class _System(msgspec.Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str


class _Developer(msgspec.Struct, tag_field="role", tag="developer", forbid_unknown_fields=True):
    content: str


class _User(msgspec.Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str


class _Assistant(msgspec.Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str
    weight: Literal[0, 1] | msgspec.UnsetType = msgspec.UNSET


_Message = _System | _Developer | _User | _Assistant


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Message]


class PlainPair(msgspec.Struct, forbid_unknown_fields=True):
    """A row of raw text."""

    prompt: str
    completion: str


class _Preference(msgspec.Struct, forbid_unknown_fields=True):
    input: _Row
    preferred_output: list[_Message]
    non_preferred_output: list[_Message]


_ENCODER: Final = msgspec.json.Encoder()


def is_plainly_good(raw: bytes) -> bool:
    """Whether no rule over lines, rows or messages can find anything in the chat of line `raw`."""
    return b"\n" not in raw and plain_rows(raw, [raw], RowKind.CHAT) is not None


def plain_rows(text: bytes, lines: Sequence[bytes], kind: RowKind) -> list[Any] | None:
    """The rows of `text` if every line is plainly good, else None; `lines` is the text split at
    LF. Some hundred lines at a time cost half of what each alone does.

    A key that stands twice is found by writing the rows again: then quotation marks are missing.
    """
    shape = _SHAPES.get(kind)
    # No line can be part of a value, or hold two of them: inside a value no `}` is followed by `{`.
    if shape is None or not all(x and x[0] == _OPENS and x[-1] == _CLOSES for x in lines):
        return None
    characters = np.frombuffer(text, np.uint8)
    if _may_escape_quotes(characters):
        return None
    decoder, is_good = shape
    try:
        rows = decoder.decode_lines(text)
        again = np.frombuffer(_ENCODER.encode_lines(rows), np.uint8)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    if np.count_nonzero(characters == _QUOTE) != np.count_nonzero(again == _QUOTE):
        return None
    return rows if len(rows) == len(lines) and all(map(is_good, rows)) else None


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


def _prefers(row: _Preference) -> bool:
    """Whether a question that says something is answered twice, and differently."""
    messages, outputs = row.input.messages, (row.preferred_output, row.non_preferred_output)
    if not messages or type(messages[-1]) is _Assistant or outputs[0] == outputs[1]:
        return False
    if any(len(output) != 1 or type(output[0]) is not _Assistant for output in outputs):
        return False
    said = (*messages, outputs[0][0], outputs[1][0])
    return all(message.content and not message.content.isspace() for message in said)


def _completes(row: PlainPair) -> bool:
    return bool(row.completion) and not row.completion.isspace()


_SHAPES: Final[Mapping[RowKind, tuple[msgspec.json.Decoder[Any], Callable[[Any], bool]]]] = {
    RowKind.CHAT: (msgspec.json.Decoder(_Row), _teaches),
    RowKind.PROMPT_COMPLETION: (msgspec.json.Decoder(PlainPair), _completes),
    RowKind.PREFERENCE: (msgspec.json.Decoder(_Preference), _prefers),
}
