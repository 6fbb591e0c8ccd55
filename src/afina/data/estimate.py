"""What a job would take: tokens, steps, time and money, before it starts.

Tokens are counted by the renderer that training uses, so they are exact. Seconds come from jobs
that finished on this machine, or, before there are any, from a measurement when the model was
pulled; they are as good as the machine is quiet (`afina.domain.rates`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from afina.data.check import CheckReport, check_file
from afina.domain import auto
from afina.domain.bins import bin_capacities
from afina.domain.foresight import MEMORY_ERROR, Network, Rows, training_memory
from afina.domain.jobs import Hyperparameters
from afina.domain.models import BaseModel
from afina.domain.precision import precision_of_base
from afina.domain.prices import Prices
from afina.domain.rates import OVERHEAD_S, Load, TrainingRate
from afina.domain.runs import LoraSpec
from afina.errors import InvalidRequest
from afina.model.kernels.machine import can_have_kernels
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
    """The most that LoRA as it is by default holds; None where the base does not say enough."""
    memory_error: float = MEMORY_ERROR


def estimate(
    path: Path,
    renderer: Renderer,
    *,
    report: CheckReport,
    hyperparameters: Hyperparameters,
    prices: Prices,
    rate: TrainingRate | None = None,
) -> Estimate:
    """The estimate for a file that was checked (`report`), with `auto` resolved as a job would."""
    if not report.rendered:
        report = check_file(path, report.limits, renderer)
    rows = report.training_rows
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
    )


def with_memory(found: Estimate, base: BaseModel) -> Estimate:
    """The estimate with the memory of LoRA as it is by default, from the base's own numbers."""
    try:
        config = json.loads((Path(base.path) / "config.json").read_text())
    except (OSError, ValueError):
        return found
    precision = precision_of_base("auto", base, "bf16", by_kernels=can_have_kernels())
    element = 4 if precision == "fp32" else 2
    network = Network.of(config, base.parameters, element)
    if network is None:
        return found
    lora = LoraSpec()
    memory = training_memory(
        network,
        Rows(
            found.rows,
            found.tokens_per_epoch,
            found.learned_tokens_per_epoch,
            found.longest_row,
        ),
        trained=network.adapter_parameters(lora.rank, lora.target_modules),
        own=False,
        batch=found.batch_size,
        largest=max(bin_capacities(found.longest_row)),
        kernels=can_have_kernels() and element == 2,
    )
    return replace(found, memory_bytes=memory)
