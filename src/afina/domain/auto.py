"""What `auto` means. The epochs follow the rule that OpenAI's cookbook publishes; batch size and
learning rate are ours, chosen by measurement (docs/decisions), and echoed in the job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from afina.domain.jobs import Hyperparameters
from afina.domain.manifests import TuneKind
from afina.domain.methods import DEFAULT_BETA

TARGET_EPOCHS: Final = 3
MIN_EXAMPLES_SEEN: Final = 100
MAX_EXAMPLES_SEEN: Final = 25_000
MAX_EPOCHS_OF_FEW: Final = 25
STEPS_AN_EPOCH: Final = 12
LARGEST_AUTO_BATCH: Final = 8
BASE_LEARNING_RATE: Final = 5e-4
"""What a multiplier of 1 means for LoRA with AdamW, one row a step, on a network of the starter's
width."""
MEASURED_WIDTH: Final = 576
_UNKNOWN_WIDTH: Final = 4096
_LARGEST_SCALED_BATCH: Final = 16
LONGEST_WARMUP: Final = 100
SHARE_OF_KIND: Final[Mapping[TuneKind, float]] = {
    "lora": 1.0,
    "dora": 1.0,
    "blocks": 0.2,
    "full": 0.1,
}
"""Weights of one's own move farther at a step than two small factors do."""
SHARE_OF_PREFERENCES: Final = 0.2


def auto_epochs(rows: int) -> int:
    """3 epochs, more for fewer than 34 rows (up to 25), fewer for more than 8,333."""
    if rows * TARGET_EPOCHS < MIN_EXAMPLES_SEEN:
        return min(MAX_EPOCHS_OF_FEW, max(1, MIN_EXAMPLES_SEEN // max(rows, 1)))
    if rows * TARGET_EPOCHS > MAX_EXAMPLES_SEEN:
        return max(1, MAX_EXAMPLES_SEEN // rows)
    return TARGET_EPOCHS


def auto_batch_size(rows: int) -> int:
    """Rows an optimiser step: as many as leave 12 steps to an epoch, 1 to 8."""
    return max(1, min(LARGEST_AUTO_BATCH, rows // STEPS_AN_EPOCH))


def base_learning_rate(hidden_size: int | None, batch_size: int) -> float:
    """What a multiplier of 1 means for LoRA: less for wider networks, more for larger batches.

    It grows with the root of the batch up to 16 rows. A network of unknown width counts as wide.
    """
    width = max(hidden_size or _UNKNOWN_WIDTH, MEASURED_WIDTH)
    narrower = (MEASURED_WIDTH / width) ** 0.75
    rate = BASE_LEARNING_RATE * narrower * math.sqrt(min(batch_size, _LARGEST_SCALED_BATCH))
    return float(f"{rate:.2g}")


def rate_share(kind: TuneKind, method: str) -> float:
    """How much of LoRA's rate another kind of tuning, or preferences, take."""
    return SHARE_OF_KIND[kind] * (SHARE_OF_PREFERENCES if method == "dpo" else 1.0)


def warmup_steps(steps: int) -> int:
    """A twentieth of the steps, at most 100."""
    return min(LONGEST_WARMUP, math.ceil(steps / 20))


def resolve(asked: Hyperparameters, rows: int) -> Hyperparameters:
    """`asked` with a number wherever it said `auto`, for a file of `rows` usable rows."""
    epochs = auto_epochs(rows) if asked.n_epochs == "auto" else asked.n_epochs
    batch = auto_batch_size(rows) if asked.batch_size == "auto" else asked.batch_size
    multiplier = asked.learning_rate_multiplier
    beta = DEFAULT_BETA if asked.beta == "auto" else asked.beta
    return Hyperparameters(epochs, batch, 1.0 if multiplier == "auto" else multiplier, beta)


def total_steps(rows: int, batch_size: int, epochs: int) -> int:
    """Optimiser steps of a whole job: every epoch ends with a step, a short one if need be."""
    return math.ceil(rows / batch_size) * epochs
