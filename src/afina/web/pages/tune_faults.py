"""Which field of a job's form an error is about, and what to put there, in the reader's language.

An error names a parameter of the API; a field whose rule is one sentence says that sentence. Other
errors about a field stay in the API's own words beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from afina.domain.methods import MAX_RANK
from afina.errors import AfinaError
from afina.language import numbers
from afina.language.strings import Texts
from afina.service.job_request import MAX_BETA, MAX_SEED
from afina.web.refusals import refused

MOST_EPOCHS: Final = 50
MOST_ROWS: Final = 256
MOST_LAYERS: Final = 512
MOST_PATIENCE: Final = 50
_PLACE: Final = re.compile(r"^integrations\[\d+\]\.")
_FIELDS: Final[Mapping[str, tuple[str, Mapping[str, int]]]] = {
    "suffix": ("suffix", {}),
    "seed": ("seed", {"most": MAX_SEED}),
    "hyperparameters.n_epochs": ("n_epochs", {"most": MOST_EPOCHS}),
    "hyperparameters.batch_size": ("batch_size", {"most": MOST_ROWS}),
    "hyperparameters.learning_rate_multiplier": ("learning_rate_multiplier", {}),
    "hyperparameters.beta": ("beta", {"most": MAX_BETA}),
    "afina.tuning.rank": ("rank", {"most": MAX_RANK}),
    "afina.tuning.layers": ("layers", {"most": MOST_LAYERS}),
    "afina.early_stopping.patience": ("patience", {"most": MOST_PATIENCE}),
    "wandb.project": ("wandb", {}),
    "mlflow.experiment": ("mlflow", {}),
}
"""Parameters whose rule is one sentence: the field, and the numbers in it."""
_PLACES: Final[Mapping[str, str]] = {
    "model": "model",
    "training_file": "file",
    "validation_file": "validation",
    "method.type": "method",
    "afina.tuning.kind": "kind",
    "afina.gate.policy": "gate",
    "metadata": "key0",
}
"""Parameters that can be wrong in several ways."""


@dataclass(frozen=True)
class FieldFault:
    """What is wrong with the form; `field` is None where it is about none of its fields."""

    field: str | None
    text: str
    language: str


def fault_of(texts: Texts, error: AfinaError) -> FieldFault:
    """An error as the form shows it."""
    param = _PLACE.sub("", error.param or "")
    if param in _FIELDS:
        field, values = _FIELDS[param]
        shown = {name: numbers.number(texts.language, most) for name, most in values.items()}
        return FieldFault(field, texts(f"tune.wrong_{field}", **shown), texts.language)
    told = refused(texts, error)
    return FieldFault(_PLACES.get(param), told.text, told.language)
