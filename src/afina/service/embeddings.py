"""Embeddings: vectors of texts from the encoder that moderation uses too.

The encoder makes 384 numbers. Fewer are refused: cutting its vectors keeps neither length nor
meaning, since it was not trained to be cut.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from afina.domain.accounts import Caller
from afina.domain.encoders import ENCODER_ID, WIDTH
from afina.errors import InvalidRequest, ModelNotFound, UnsupportedField
from afina.service.budgets import check_budget
from afina.service.platform import Platform
from afina.service.refusals import Wire, fault, named
from afina.service.usage import record_embedding
from afina.serving.network_client import NetworkClient
from afina.serving.network_protocol import Embed

MOST_INPUTS: Final = 2048
MOST_CHARACTERS: Final = 400_000
"""Of all inputs together."""
_LAST_ID = 2**31 - 1
Token = Annotated[int, Field(ge=0, le=_LAST_ID)]


def _text_or_ids(value: object) -> object:
    """Refuses in one sentence what is neither text nor ids of tokens, one or several."""
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, str) for part in parts):
        return value
    if isinstance(value, list):
        several = all(isinstance(part, list) for part in value)
        ids = [one for part in value for one in part] if several else value
        if all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
            if all(0 <= one <= _LAST_ID for one in ids):
                return value
            raise fault("invalid_value", f"ids of tokens are from 0 to {_LAST_ID}")
    raise fault(
        "invalid_type",
        "expected a string, an array of strings, ids of tokens, or an array of arrays of ids"
        + ("" if isinstance(value, list) else f", but got {named(value)} instead"),
    )


class EmbeddingRequest(Wire):
    """POST /v1/embeddings. `user` is for the caller's own order: nothing depends on it."""

    input: Annotated[
        str | list[str] | list[Token] | list[list[Token]], BeforeValidator(_text_or_ids)
    ]
    model: Annotated[str, Field(min_length=1, max_length=300)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None


@dataclass(frozen=True)
class EmbeddingService:
    """Answers requests for embeddings, and writes them into the ledger."""

    platform: Platform

    def answer(self, caller: Caller, asked: EmbeddingRequest, request_id: str) -> dict[str, Any]:
        """The wire's answer. Raises ModelNotFound, UnsupportedField, InvalidRequest, QuotaExceeded,
        and what the engine says. `request_id` names the usage in the ledger."""
        settings = self.platform.settings
        _check_model(asked.model, settings.model_aliases)
        if asked.dimensions not in (None, WIDTH):
            raise UnsupportedField(
                f"The model '{ENCODER_ID}' makes vectors of {WIDTH} dimensions and was not trained "
                f"to be cut: leave 'dimensions' out or say {WIDTH}.",
                param="dimensions",
                code="unsupported_value",
            )
        wanted = _embed(asked)
        check_budget(self.platform, caller)
        found = NetworkClient(settings.engine_socket).embed(wanted)
        total = sum(found.tokens)
        record_embedding(self.platform, caller, request_id, ENCODER_ID, total)
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": vector if asked.encoding_format == "base64" else _floats(vector),
            }
            for index, vector in enumerate(found.vectors)
        ]
        return {
            "object": "list",
            "data": data,
            "model": ENCODER_ID,
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }


def _embed(asked: EmbeddingRequest) -> Embed:
    given = asked.input
    inputs: list[Any] = [given] if isinstance(given, str) else list(given)
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    if not 1 <= len(inputs) <= MOST_INPUTS:
        raise _wrong(f"it may hold 1 to {MOST_INPUTS} inputs, but holds {len(inputs)}")
    if any(len(one) == 0 for one in inputs):
        raise _wrong("an input may not be empty")
    if sum(len(one) for one in inputs) > MOST_CHARACTERS:
        raise _wrong(f"all inputs together may hold {MOST_CHARACTERS} characters or tokens")
    if isinstance(inputs[0], str):
        return Embed(texts=inputs)
    return Embed(ids=inputs)


def _wrong(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for 'input': {reason}.", param="input", code="invalid_value"
    )


def _check_model(name: str, aliases: Mapping[str, str]) -> None:
    if aliases.get(name, name) != ENCODER_ID:
        raise ModelNotFound(
            f"The model `{name[:300]}` does not make embeddings here.",
            param="model",
            remedy=f"Use '{ENCODER_ID}', or name it in model_aliases.",
        )


def _floats(vector: str) -> list[float]:
    raw = base64.b64decode(vector)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
