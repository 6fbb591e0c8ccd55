"""Ids to text, one at a time, for streaming. It never splits a character, and what it gave in
pieces is what `ChatTokenizer.decode` gives at once. Control tokens give nothing.

Bytes that are no character give U+FFFD; how many of them, decoding at once may see differently for
tokenizers that fall back to bytes."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from afina.text.tokenizer import ChatTokenizer

_REPLACEMENT = "\ufffd"
_WINDOW_TOKENS = 32
"""A run of this many tokens that is no whole character yet is given out as it is."""


class Detokenizer:
    """The text of one growing answer."""

    def __init__(self, tokenizer: ChatTokenizer, visible: Collection[int] = ()) -> None:
        """`visible` are control tokens that give their text all the same."""
        self._tokenizer = tokenizer
        self._visible = visible
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._at_start = tokenizer.strips_first_space
        self._given = 0
        """Ids of the window whose text was given out."""

    def push(self, token: int) -> str:
        """What `token` adds; empty while a character is incomplete."""
        if token in self._tokenizer.control_ids:
            return self._shown(token) if token in self._visible else ""
        if self._tokenizer.joins_bytes:
            return self._stripped(self._bytes.decode(self._tokenizer.token_bytes(token)))
        self._ids.append(token)
        return self._window(final=False)

    def finish(self) -> str:
        """What is left at the end: a replacement character for bytes that never became one."""
        if self._tokenizer.joins_bytes:
            return self._stripped(self._bytes.decode(b"", final=True))
        return self._window(final=True)

    def _shown(self, token: int) -> str:
        """What was held back, then the control token as it is written."""
        rest = self.finish()
        self._ids, self._given = [], 0
        return rest + self._tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _stripped(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text

    def _window(self, final: bool) -> str:
        """Text of the ids not given out yet. The ids before them are decoded along, because a
        token's text may depend on its neighbour."""
        before = self._tokenizer.decode(self._ids[: self._given])
        text = self._tokenizer.decode(self._ids)
        waiting = len(self._ids) - self._given
        if text.endswith(_REPLACEMENT) and not final and waiting < _WINDOW_TOKENS:
            return ""
        del self._ids[: self._given]
        self._given = len(self._ids)
        return text[len(before) :]
