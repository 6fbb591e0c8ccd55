"""What a run was expected to take, beside what it took: told once, when its trainer has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afina.domain.foresight import Network, Rows, training_memory
from afina.domain.models import BaseModel
from afina.domain.rates import Load, TrainingRate
from afina.domain.runs import LoraSpec, RunResult, RunSpec
from afina.domain.sayings import Said, say
from afina.model.kernels.machine import can_have_kernels
from afina.service.rates import rate_for
from afina.settings import Settings


@dataclass(frozen=True)
class Foresight:
    """Before a run: tokens that are billed, seconds of training, and the most memory; None where
    nobody knows."""

    trained_tokens: int
    seconds: float | None
    memory_bytes: int | None


def rate_of(settings: Settings, base: BaseModel | None, spec: RunSpec) -> TrainingRate | None:
    """What this machine's finished jobs, or the base's probe, say of such a run."""
    known = base or BaseModel(spec.base.id, spec.base.path, spec.base.sha256, 0)
    return rate_for(
        settings,
        known,
        kind=spec.tune.kind,
        base_bits=spec.tune.base_bits,
        method=spec.method,
        step_tokens=load_of(spec).step_tokens,
    )


def load_of(spec: RunSpec) -> Load:
    """What a run computes, from its spec."""
    data, epochs = spec.training, spec.epochs
    return Load(
        tokens=data.tokens * epochs,
        rows=data.rows * epochs,
        steps=spec.optimizer.total_steps,
        learned=data.learned_tokens * epochs,
        longest=data.longest_row,
    )


def foresee(base: BaseModel | None, spec: RunSpec, rate: TrainingRate | None) -> Foresight:
    """From the run's spec and what is known of this machine's rate."""
    load = load_of(spec)
    return Foresight(
        trained_tokens=load.tokens,
        seconds=rate.training_seconds(load) if rate else None,
        memory_bytes=_memory(base, spec),
    )


def compared(
    base: BaseModel | None, spec: RunSpec, result: RunResult, rate: TrainingRate | None
) -> tuple[tuple[Said, ...], dict[str, Any]]:
    """Sentences, and the same as values: what was expected, and what was measured."""
    before = foresee(base, spec, rate)
    data = {
        "estimate": {
            "trained_tokens": before.trained_tokens,
            "seconds": None if before.seconds is None else round(before.seconds, 1),
            "memory_bytes": before.memory_bytes,
        },
        "measured": {
            "trained_tokens": result.trained_tokens,
            "seconds": round(result.train_seconds, 1),
            "memory_bytes": result.peak_rss_bytes,
        },
        "seconds_from": rate.origin if rate else None,
    }
    tokens = say("foreseen_tokens", expected=before.trained_tokens, came=result.trained_tokens)
    time = say("unforeseen_time", took_s=result.train_seconds)
    if before.seconds is not None:
        time = say("foreseen_time", expected_s=before.seconds, took_s=result.train_seconds)
    memory = say("unforeseen_memory", took_bytes=result.peak_rss_bytes)
    if before.memory_bytes is not None:
        known = {"expected_bytes": before.memory_bytes, "took_bytes": result.peak_rss_bytes}
        memory = say("foreseen_memory", **known)
    return (tokens, time, memory), data


def _memory(base: BaseModel | None, spec: RunSpec) -> int | None:
    if base is None or spec.tune.base_bits != 16:
        return None
    try:
        config = json.loads((Path(spec.base.path) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    element = 2 if spec.precision == "bf16" else 4
    network = Network.of(config, base.parameters, element)
    if network is None or spec.tune.kind not in ("lora", "full"):
        return None
    own = spec.tune.kind == "full"
    trained = (
        base.parameters
        if own
        else network.adapter_parameters(spec.lora.rank, spec.lora.target_modules)
    )
    data = spec.training
    return training_memory(
        network,
        Rows(data.rows, data.tokens, data.learned_tokens, data.longest_row),
        trained=trained,
        own=own,
        batch=spec.batch_size,
        largest=max(spec.bin_capacities),
        kernels=_by_kernels(spec),
    )


def _by_kernels(spec: RunSpec) -> bool:
    """Whether kernels compute such a run's layers, where they can."""
    plain = not spec.lora.dropout and set(LoraSpec().target_modules) <= set(
        spec.lora.target_modules
    )
    in_bf16 = spec.precision == "bf16"
    return can_have_kernels() and in_bf16 and (spec.tune.kind == "full" or plain)
