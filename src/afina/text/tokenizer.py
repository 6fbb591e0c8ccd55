"""A model's own tokenizer, by the `tokenizers` package alone.

Two ways in: `encode` takes what people wrote and never makes a control token of it;
`encode_template` takes what a template wrote and does. Nothing here renders; see
`afina.text.renderer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ChatTokenizer:
    """The tokenizer of a model folder."""

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """The tokenizer in `folder`. Raises BaseRefused where there is none or it is damaged."""
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: what looks like a control token stays text."""
        raise NotImplementedError

    def encode_template(self, text: str) -> list[int]:
        """Ids of text that a template wrote: control tokens are parsed."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, control tokens left out."""
        raise NotImplementedError

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, perhaps part of a character."""
        raise NotImplementedError
