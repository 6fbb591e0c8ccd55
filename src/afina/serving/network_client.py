"""What api, worker and commands know of the engine's other networks. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from afina.errors import EngineFailed
from afina.serving.client import BlockingEngineClient
from afina.serving.network_protocol import Embed, Embedded, Moderate, Moderated

T = TypeVar("T")


class NetworkClient(BlockingEngineClient):
    """Asks for scores and vectors; waits for them."""

    def moderate(self, texts: Sequence[str]) -> Moderated:
        """Scores of texts. Raises Unavailable where the encoder is missing or no engine runs."""
        body = msgspec.json.encode(Moderate(list(texts)))
        return _read(self._call("/moderate", body), Moderated)

    def embed(self, asked: Embed) -> Embedded:
        """Vectors of texts, or of texts given as token ids."""
        return _read(self._call("/embed", msgspec.json.encode(asked)), Embedded)


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise EngineFailed(
            "The engine's answer is not of its protocol.", remedy="Ask again."
        ) from None
