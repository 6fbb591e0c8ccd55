"""The request of a plain completion (not a chat): each field honoured or refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from afina.errors import InvalidRequest
from afina.service.asking import Sampling
from afina.service.chat_request import (
    LogitBias,
    Penalty,
    Stop,
    StreamOptions,
    bias_by_id,
    stop_strings,
)
from afina.service.messages import unsupported
from afina.service.refusals import Wire, fault, named

MOST_PROMPTS: Final = 2048
_MOST_IDS: Final = 1_000_000
_ID_SPAN: Final = 2**31
"""No vocabulary has an id beyond it, and tokenizers can read none."""
_DEFAULT_TOKENS: Final = 16


def _prompts(value: object) -> object:
    """One prompt or several, each text or ids of tokens."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise fault(
            "invalid_type", f"expected a string or an array, but got {named(value)} instead"
        )
    if not value:
        raise fault("empty_array", "expected at least one prompt")
    if all(isinstance(part, str) for part in value) or _is_ids(value):
        return value
    if all(isinstance(part, list) and _is_ids(part) for part in value):
        return value
    raise fault(
        "invalid_type",
        "expected strings alone, ids of tokens below 2**31, or arrays of ids",
    )


def _is_ids(value: list[object]) -> bool:
    return 0 < len(value) <= _MOST_IDS and all(
        isinstance(part, int) and not isinstance(part, bool) and 0 <= part < _ID_SPAN
        for part in value
    )


_TEXT: Final = {"type": "string"}
_ID: Final = {"type": "integer", "minimum": 0, "maximum": _ID_SPAN - 1}
_IDS: Final = {"type": "array", "items": _ID, "minItems": 1}
Prompts = Annotated[
    Any,
    BeforeValidator(_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1},
                _IDS,
                {"type": "array", "items": _IDS, "minItems": 1},
                {"type": "null"},
            ]
        }
    ),
]


class CompletionRequest(Wire):
    """POST /v1/completions."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    prompt: Prompts = None
    best_of: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    presence_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts; the empty text where none is given."""
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or ""]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def token_limit(self) -> int:
        """The most tokens that each answer may have."""
        return _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def computed(self) -> int:
        """Choices that are computed for each prompt; the best `n` are given."""
        return max(self.n or 1, self.best_of or 1)


def refuse_unsupported(request: CompletionRequest) -> None:
    """Raises UnsupportedField or InvalidRequest for what cannot be done."""
    if request.suffix:
        raise unsupported("suffix", "models here write on, they do not fill in: leave it out")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "'stream_options' is only allowed when 'stream' is true.",
            param="stream_options",
            code="invalid_value",
        )
    if request.best_of is not None and request.best_of < (request.n or 1):
        raise InvalidRequest(
            "'best_of' must not be smaller than 'n'.", param="best_of", code="invalid_value"
        )
    if request.stream and request.computed > (request.n or 1):
        raise InvalidRequest(
            "'best_of' is only known at the end: it cannot be streamed.",
            param="best_of",
            code="invalid_value",
        )
    if len(request.prompts) > MOST_PROMPTS:
        raise InvalidRequest(
            f"Invalid 'prompt': array too long: at most {MOST_PROMPTS} prompts.",
            param="prompt",
            code="array_above_max_length",
        )


def sampling(request: CompletionRequest) -> Sampling:
    """How answers are chosen. Choosing the best needs log-probabilities of all."""
    ranked = request.computed > (request.n or 1)
    return Sampling(
        max_tokens=request.token_limit,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=bias_by_id(request.logit_bias),
        seed=request.seed,
        stop=stop_strings(request.stop),
        n=request.computed,
        logprobs=0 if ranked and request.logprobs is None else request.logprobs,
    )
