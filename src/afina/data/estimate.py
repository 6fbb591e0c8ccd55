"""What a job would take: tokens, steps, time and money, before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afina.data.check import CheckReport
from afina.domain.jobs import Hyperparameters
from afina.domain.prices import Prices
from afina.text.renderer import Renderer


@dataclass(frozen=True)
class Estimate:
    """Tokens are exact; seconds are within `seconds_error` (a fraction) on a quiet machine."""

    rows: int
    rows_dropped: int
    tokens_per_epoch: int
    learned_tokens_per_epoch: int
    longest_row: int
    epochs: int
    batch_size: int
    steps: int
    trained_tokens: int
    """Billed: `tokens_per_epoch` times `epochs`."""
    learned_tokens: int
    seconds: float | None
    """None where the machine's rate was never measured."""
    seconds_error: float
    cost_pico: int
    """Picodollars."""


def estimate(
    path: Path,
    renderer: Renderer,
    *,
    report: CheckReport,
    hyperparameters: Hyperparameters,
    prices: Prices,
    tokens_per_s: float | None = None,
    overhead_s: float = 20.0,
) -> Estimate:
    """The estimate for a file that was checked (`report`), with `auto` resolved as a job would."""
    raise NotImplementedError
