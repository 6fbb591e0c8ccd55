"""Marks that keep what a user wrote from being read as a control token.

Before a template runs, a character that nobody writes (a Unicode noncharacter that occurs nowhere
in the chat) is put inside every control token found in a user's text. The text that the template
returns then holds only the control tokens that the template itself wrote; the marks are taken out
when a piece is encoded as plain text.
"""

from __future__ import annotations

import re
from typing import Final

from afina.errors import InvalidRequest
from afina.text.conversation import Conversation, map_strings, strings
from afina.text.tokenizer import ChatTokenizer

_CANDIDATES: Final = tuple(chr(point) for point in range(0xFDD1, 0xFDF0))


def mark_conversation(
    conversation: Conversation, tokenizer: ChatTokenizer
) -> tuple[Conversation, str | None]:
    """The conversation with marks, and the mark; itself and None where none are needed."""
    written = strings(conversation)
    if not any(tokenizer.has_control(text) for text in written):
        return conversation, None
    mark = next((c for c in _CANDIDATES if not any(c in text for text in written)), None)
    if mark is None:
        raise InvalidRequest(
            "The messages hold every one of the noncharacters U+FDD1 to U+FDEF.",
            param="messages",
            remedy="Remove them: they are not text.",
        )
    starts = re.compile(f"(?={'|'.join(re.escape(p.text) for p in tokenizer.control)})")
    return map_strings(conversation, lambda text: _mark(text, starts, mark)), mark


def _mark(text: str, starts: re.Pattern[str], mark: str) -> str:
    """`text` with `mark` after the first character of every control token in it, overlapping
    ones included."""
    pieces, done = [], 0
    for match in starts.finditer(text):
        pieces.append(text[done : match.start() + 1])
        done = match.start() + 1
    pieces.append(text[done:])
    return mark.join(pieces)
