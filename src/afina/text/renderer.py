"""Chat to tokens, for training and for serving alike: the one place where it happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afina.errors import InvalidRequest
from afina.text.tokenizer import ChatTokenizer


@dataclass(frozen=True)
class RenderedRow:
    """A training row: its ids, and which of them carry loss."""

    ids: list[int]
    learned: list[bool]


class Renderer:
    """The template and the tokenizer of a model folder."""

    tokenizer: ChatTokenizer
    end_tokens: tuple[int, ...]
    """Ids that end an assistant's turn."""
    template_sha256: str
    """Of all that decides how a chat becomes text: template, its variables, our tool format."""
    fingerprint: str
    """Of all that decides how a chat becomes ids: `template_sha256` and the tokenizer."""
    context_tokens: int
    tools_format: str
    """`native` where the template knows tools, else the id of our own format."""

    @classmethod
    def load(cls, folder: Path) -> Renderer:
        """The renderer of a model folder. Raises BaseRefused naming what is missing."""
        raise NotImplementedError

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Ids up to where the assistant speaks. Raises InvalidRequest with `param`."""
        raise NotImplementedError

    def training_row(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> RenderedRow:
        """The whole chat, with loss on what assistants say and on their end of turn."""
        raise NotImplementedError

    def training_rows(
        self,
        chats: Iterable[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]],
    ) -> list[tuple[RenderedRow, ...] | InvalidRequest]:
        """Many chats at once, quickly. A chat is one row, or one row a learned turn where the
        template writes earlier turns differently later; or the reason why it cannot be rendered."""
        raise NotImplementedError
