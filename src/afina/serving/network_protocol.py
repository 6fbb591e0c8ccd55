"""What the engine is asked of its other networks: moderation and embeddings. No torch here.

    POST /moderate          Moderate  -> Moderated
    POST /embed             Embed     -> Embedded

Both are answered by the encoder of `afina.model.encoder`. The engine keeps no journal of them: the
service that asks writes what they read into the ledger.
"""

from __future__ import annotations

import msgspec


class Moderate(msgspec.Struct, forbid_unknown_fields=True):
    """Texts to score."""

    texts: list[str]


class Moderated(msgspec.Struct):
    """Scores `[texts][categories]`, in the order of `afina.data.moderation.categories`."""

    model: str
    scores: list[list[float]]
    tokens: list[int]
    """Those of each text, its marks counted too, as in Embedded."""


class Embed(msgspec.Struct, forbid_unknown_fields=True):
    """Texts, or ids of the encoder's own tokens, to make vectors of."""

    texts: list[str] = []
    ids: list[list[int]] = []


class Embedded(msgspec.Struct):
    """A vector each, as base64 of little-endian float32, of length 1; and its tokens."""

    vectors: list[str]
    tokens: list[int]
