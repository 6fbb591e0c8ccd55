"""What a request for a job may say: the ranges and meaning of its values.

The api has checked names and types; other skins have not, so every range is checked here, once for
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from afina.domain.integrations import Integration
from afina.domain.jobs import Auto, Hyperparameters
from afina.domain.methods import Extension
from afina.domain.models import plain_suffix
from afina.errors import InvalidRequest, UnsupportedField

MAX_SEED: Final = 2_147_483_647
MAX_SUFFIX: Final = 64
MAX_PAIRS: Final = 16
MAX_PAIR_KEY: Final = 64
MAX_PAIR_VALUE: Final = 512
MAX_BETA: Final = 2
METHODS: Final = ("supervised", "dpo")
"""The methods that are offered."""


@dataclass(frozen=True)
class JobRequest:
    """What a client asked for."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int | None = None
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    method: str = "supervised"
    method_given: bool = False
    metadata: Mapping[str, str] | None = None
    integrations: tuple[Integration, ...] = ()
    extension: Extension = field(default_factory=Extension)
    kind_given: bool = False
    """Whether the kind of tuning was asked for, or is lora because nothing was said."""


def check_request(request: JobRequest) -> None:
    """Raises InvalidRequest or UnsupportedField with the name of the first wrong field."""
    if request.method not in METHODS:
        raise UnsupportedField(
            f"The method {request.method[:32]!r} is not offered here.",
            param="method.type",
            remedy=f"Use {' or '.join(METHODS)}.",
        )
    if request.suffix is not None:
        check_suffix(request.suffix, "suffix")
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
        raise _outside("seed", f"from 0 to {MAX_SEED}")
    _check_hyperparameters(request.hyperparameters)
    check_metadata(request.metadata)


def check_suffix(suffix: str, param: str) -> None:
    """Raises InvalidRequest for one that cannot be a part of a name."""
    if not (1 <= len(suffix) <= MAX_SUFFIX and _is_text(suffix) and plain_suffix(suffix)):
        raise InvalidRequest(
            f"The suffix must be 1 to {MAX_SUFFIX} characters, a letter a-z or a digit among them.",
            param=param,
            code="invalid_value",
            remedy="In the model's name it stands in small letters, digits and hyphens.",
        )


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raises InvalidRequest beyond 16 pairs, 64 characters a key or 512 a value."""
    pairs = metadata or {}
    if len(pairs) > MAX_PAIRS:
        raise InvalidRequest(
            f"metadata may have at most {MAX_PAIRS} pairs, but has {len(pairs)}.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in pairs.items():
        if not _is_text(key + value):
            raise InvalidRequest(
                "metadata holds characters that are not text.",
                param="metadata",
                code="invalid_value",
            )
        if not 1 <= len(key) <= MAX_PAIR_KEY or len(value) > MAX_PAIR_VALUE:
            raise InvalidRequest(
                f"A key in metadata may have 1 to {MAX_PAIR_KEY} characters, a value up to "
                f"{MAX_PAIR_VALUE}.",
                param="metadata",
                code="string_above_max_length",
            )


def _is_text(value: str) -> bool:
    """Neither NUL nor half a surrogate pair: JSON can say them, databases cannot hold them."""
    return not any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in value)


def _check_hyperparameters(asked: Hyperparameters) -> None:
    _check_whole("n_epochs", asked.n_epochs, 50)
    _check_whole("batch_size", asked.batch_size, 256)
    rate = asked.learning_rate_multiplier
    if rate != "auto" and not (math.isfinite(rate) and rate > 0):
        raise _outside("hyperparameters.learning_rate_multiplier", "auto or a number above 0")
    beta = asked.beta
    if beta is not None and beta != "auto" and not 0 < beta <= MAX_BETA:
        raise _outside("hyperparameters.beta", f"auto or a number above 0 and up to {MAX_BETA}")


def _check_whole(name: str, value: int | Auto, most: int) -> None:
    if value != "auto" and not 1 <= value <= most:
        raise _outside(f"hyperparameters.{name}", f"auto or from 1 to {most}")


def _outside(param: str, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"{param} must be {allowed}.", param=param, code="invalid_value")
