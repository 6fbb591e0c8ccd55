"""Resolve: a job becomes a RunSpec with no `auto` and no default left open.

What is decided here by measurement rather than by the wire API: warm-up is a twentieth of the
steps, at most 100; bins have the capacities of afina.domain.bins; precision is bf16 where the
processor multiplies it natively, fp32 elsewhere; parity prompts are chosen by the hash of rows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from afina.data.shards import Shards
from afina.domain import auto
from afina.domain.bins import bin_capacities
from afina.domain.jobs import Hyperparameters, Job
from afina.domain.models import BaseModel
from afina.domain.runs import (
    RENDERED_AT,
    BaseSpec,
    DataSpec,
    OptimizerSpec,
    ParentSpec,
    ParityPrompt,
    RunSpec,
    TuneSpec,
)
from afina.inside_settings import TrainingSettings
from afina.service.ways import kernels_take, lora_for, precision_for, tune_for

PARITY_PROMPTS: Final = 8
PARITY_NEW_TOKENS: Final = 32
PARITY_PROMPT_TOKENS: Final = 1024
"""Longer prompts prove no more and cost the trainer and the engine seconds each."""


@dataclass(frozen=True)
class Resolution:
    """What a run is resolved from."""

    job: Job
    base: BaseModel
    training: DataSpec
    validation: DataSpec | None
    end_tokens: tuple[int, ...]
    context_tokens: int
    template_sha256: str
    parent: ParentSpec | None = None
    rendered_at: int | None = None
    """The moment that the template was told, where it asks for one."""

    @property
    def units(self) -> int:
        """What an epoch counts: rows, or pairs of them."""
        rows = self.training.rows
        return rows // 2 if self.job.method == "dpo" else rows


def resolve_run(given: Resolution, settings: TrainingSettings) -> tuple[RunSpec, Hyperparameters]:
    """The run of a job, and its hyperparameters as numbers to echo."""
    numbers = auto.resolve(given.job.hyperparameters, given.units)
    epochs, batch = int(numbers.n_epochs), int(numbers.batch_size)
    multiplier = float(numbers.learning_rate_multiplier)
    steps = auto.total_steps(given.units, batch, epochs)
    extension = given.job.extension
    tune = tune_for(extension.tuning)
    rate = base_rate_for(given.base, batch) * auto.rate_share(tune.kind, given.job.method)
    spec = RunSpec(
        format=1,
        job_id=given.job.id,
        base=BaseSpec(given.base.id, given.base.path, given.base.sha256),
        lora=lora_for(extension.tuning, given.base),
        training=given.training,
        validation=given.validation,
        epochs=epochs,
        batch_size=batch,
        optimizer=OptimizerSpec(
            learning_rate=rate * multiplier,
            warmup_steps=auto.warmup_steps(steps),
            total_steps=steps,
        ),
        seed=given.job.seed,
        precision=precision_for(
            settings, given.base, by_kernels=kernels_take(tune, extension.tuning)
        ),
        threads=max(1, (settings.threads or free_cores()) // settings.processes),
        processes=settings.processes,
        sharded=settings.shard_full_weights and tune.kind == "full",
        bin_capacities=capacities_for(given),
        end_tokens=given.end_tokens,
        resume_interval_s=settings.resume_interval_s,
        parity_prompts=parity_prompts(given),
        parity_new_tokens=PARITY_NEW_TOKENS,
        tune=tune,
        method="dpo" if given.job.method == "dpo" else "supervised",
        beta=float(numbers.beta or 0),
        parent=given.parent,
        early_stopping=extension.early_stopping,
        best_checkpoint=extension.best_checkpoint,
        settings={
            "method": given.job.method,
            "n_epochs": str(epochs),
            "batch_size": str(batch),
            "learning_rate_multiplier": f"{multiplier:g}",
            "seed": str(given.job.seed),
            "template_sha256": given.template_sha256,
            **({} if given.rendered_at is None else {RENDERED_AT: str(given.rendered_at)}),
            **settings_of(tune, numbers),
        },
    )
    return spec, numbers


def capacities_for(given: Resolution) -> tuple[int, ...]:
    """The sizes of bins that hold the longest row of both files."""
    longest = given.training.longest_row
    if given.validation is not None:
        longest = max(longest, given.validation.longest_row)
    return bin_capacities(2 * longest if given.job.method == "dpo" else longest)


def settings_of(tune: TuneSpec, numbers: Hyperparameters) -> dict[str, str]:
    """What the manifest says besides; a job that continues reads it again."""
    said = {} if numbers.beta is None else {"beta": f"{numbers.beta:g}"}
    if tune.kind == "blocks":
        head = "true" if tune.norm_and_head else "false"
        said |= {"layers": str(tune.layers), "norm_and_head": head}
    if tune.base_bits != 16:
        said["base_bits"] = str(tune.base_bits)
    return said


def base_rate_for(base: BaseModel, batch_size: int) -> float:
    """What a learning rate multiplier of 1 means for this base and batch."""
    width = base.capabilities.get("hidden_size")
    return auto.base_learning_rate(width if isinstance(width, int) else None, batch_size)


def free_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def parity_prompts(given: Resolution) -> tuple[ParityPrompt, ...]:
    """Eight prompts by hash from the validation rows, else from the training rows: each row up to
    where its last learned turn begins, or as much of that as the trainer continues quickly."""
    source = given.validation or given.training
    rows = Shards.open(Path(source.path))
    limit = min(PARITY_PROMPT_TOKENS, given.context_tokens - PARITY_NEW_TOKENS)
    found: dict[str, int] = {}
    for index in range(len(rows)):
        ids, learned = rows.row(index)
        if _last_turn(learned):
            found.setdefault(hashlib.sha256(ids.tobytes()).hexdigest(), index)
    prompts = []
    for digest in sorted(found)[:PARITY_PROMPTS]:
        ids, learned = rows.row(found[digest])
        prompt = ids[: min(_last_turn(learned), limit)]
        prompts.append(ParityPrompt(digest, tuple(int(i) for i in prompt)))
    return tuple(prompts)


def _last_turn(learned: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    """Where the last run of learned tokens begins; 0 where there is none."""
    places = np.flatnonzero(learned)
    if not len(places):
        return 0
    breaks = np.flatnonzero(np.diff(places) > 1)
    return int(places[breaks[-1] + 1] if len(breaks) else places[0])
