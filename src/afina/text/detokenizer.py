"""Ids to text, one at a time, for streaming. It never splits a character."""

from __future__ import annotations

from afina.text.tokenizer import ChatTokenizer


class Detokenizer:
    """The text of one growing answer."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer

    def push(self, token: int) -> str:
        """What `token` adds; empty while a character is incomplete."""
        raise NotImplementedError

    def finish(self) -> str:
        """What is left at the end: a replacement character for bytes that never became one."""
        raise NotImplementedError
