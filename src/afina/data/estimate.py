"""What a job would take: tokens, steps, time and money, before it starts.

Tokens are counted by the renderer that training uses, so they are exact. Seconds come from jobs
that finished on this machine, or, before there are any, from a measurement when the model was
pulled; they are as good as the machine is quiet (`afina.domain.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from afina.data.check import CheckReport, check_file
from afina.data.kinds import RowKind
from afina.domain import auto
from afina.domain.foresight import MEMORY_ERROR, Packed
from afina.domain.jobs import Hyperparameters
from afina.domain.prices import Prices
from afina.domain.rates import OVERHEAD_S, Load, TrainingRate
from afina.domain.ways import PLAIN, Way
from afina.errors import InvalidRequest
from afina.text.renderer import Renderer

SECONDS_ERROR: Final = 0.25


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
    """With `overhead_s`. None where the machine's rate was never measured."""
    seconds_error: float
    overhead_s: float
    """Loading the model, saving, parity and publishing: it does not grow with the data."""
    seconds_from: str | None
    """Where the rate comes from, in words; None where there is none."""
    seconds_jobs: int
    """Finished jobs that the rate was learned from; 0: it was measured at the pull."""
    cost_pico: int
    """Picodollars."""
    memory_bytes: int | None = None
    """The most that the trainer holds; None where the base does not say enough."""
    memory_error: float = MEMORY_ERROR


def units_of(report: CheckReport) -> int:
    """What an epoch counts: rows of shards, or pairs of them."""
    pairs = report.kind is RowKind.PREFERENCE
    return report.training_rows // 2 if pairs else report.training_rows


def estimate(  # noqa: PLR0913 - what is known of a job
    path: Path,
    renderer: Renderer,
    *,
    report: CheckReport,
    hyperparameters: Hyperparameters,
    prices: Prices,
    rate: TrainingRate | None = None,
    way: Way = PLAIN,
    packed: Packed | None = None,
    memory_bytes: int | None = None,
) -> Estimate:
    """The estimate for a file that was checked (`report`), with `auto` resolved as a job would."""
    if not report.rendered:
        report = check_file(path, report.limits, renderer)
    rows = units_of(report)
    if rows == 0:
        raise InvalidRequest(
            f"{report.file} has no usable row.", remedy="`afina data check` names what is wrong."
        )
    resolved = auto.resolve(hyperparameters, rows)
    epochs, batch_size = int(resolved.n_epochs), int(resolved.batch_size)
    trained = report.tokens * epochs
    load = Load(
        tokens=trained,
        rows=rows * epochs,
        steps=auto.total_steps(rows, batch_size, epochs),
        learned=report.learned_tokens * epochs,
        longest=report.longest_row,
        computed=None if packed is None else round(trained * packed.share),
        way=way,
        epochs=epochs,
    )
    return Estimate(
        rows=report.rows_usable,
        rows_dropped=report.rows_total - report.rows_usable,
        tokens_per_epoch=report.tokens,
        learned_tokens_per_epoch=report.learned_tokens,
        longest_row=report.longest_row,
        epochs=epochs,
        batch_size=batch_size,
        steps=load.steps,
        trained_tokens=trained,
        learned_tokens=report.learned_tokens * epochs,
        seconds=rate.seconds(load) if rate else None,
        seconds_error=SECONDS_ERROR,
        overhead_s=rate.overhead_s if rate else OVERHEAD_S,
        seconds_from=rate.origin if rate else None,
        seconds_jobs=rate.jobs if rate else 0,
        cost_pico=prices.training_cost(trained),
        memory_bytes=memory_bytes,
    )
