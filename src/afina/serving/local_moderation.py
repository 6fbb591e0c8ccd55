"""Moderation in this process, for commands that run without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from afina.data.moderation.pieces import distinct, joined, pieces_of
from afina.model.encoder import Encoder
from afina.serving.moderation_head import ModerationHead

AT_ONCE = 512
"""Texts that are sorted by length together."""


class OwnBackend:
    """The same model as in the engine, loaded here."""

    def __init__(self, folder: Path) -> None:
        native = torch.cpu._is_avx512_bf16_supported()
        self._encoder = Encoder(folder, torch.bfloat16 if native else torch.float32)
        self._head = ModerationHead.load(self._encoder)

    @property
    def name(self) -> str:
        return self._head.version

    def judge(self, texts: Sequence[str]) -> list[tuple[list[float], int]]:
        """Scores by category and tokens of each text."""
        flat, where = distinct([pieces_of(text) for text in texts])
        ids = self._encoder.tokenizer.ids([self._head.prefix + piece for piece in flat])
        scores: list[list[float]] = []
        for start in range(0, len(flat), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            scores += self._head.scores(self._encoder, ids[part], flat[part])
        tokens = [len(one) + 2 for one in self._encoder.tokenizer.ids(texts)]
        return list(zip(joined(where, scores), tokens, strict=True))
