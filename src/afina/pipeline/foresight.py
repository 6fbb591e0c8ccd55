"""What a run was expected to take, beside what it took: told once, when its trainer has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from afina.domain.foresight import Packed, Rows
from afina.domain.models import BaseModel
from afina.domain.rates import Load, TrainingRate
from afina.domain.runs import RunResult, RunSpec
from afina.domain.sayings import Said, say
from afina.domain.ways import Way
from afina.service.estimates import memory_of
from afina.service.packing_ahead import packed_run
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
        way=Way.of_run(spec),
        step_tokens=load_of(spec).step_tokens,
    )


def load_of(spec: RunSpec, packed: Packed | None = None) -> Load:
    """What a run computes, from its spec and how its steps are packed."""
    data, epochs = spec.training, spec.epochs
    tokens = data.tokens * epochs
    return Load(
        tokens=data.tokens * epochs,
        rows=spec.units(data.rows) * epochs,
        steps=spec.optimizer.total_steps,
        learned=data.learned_tokens * epochs,
        longest=data.longest_row,
        computed=None if packed is None else round(tokens * packed.share),
        way=Way.of_run(spec),
        epochs=epochs,
    )


def foresee(base: BaseModel | None, spec: RunSpec, rate: TrainingRate | None) -> Foresight:
    """From the run's spec and what is known of this machine's rate."""
    packed = packed_run(spec)
    load = load_of(spec, packed)
    return Foresight(
        trained_tokens=load.tokens,
        seconds=rate.training_seconds(load) if rate else None,
        memory_bytes=_memory(base, spec, packed),
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


def _memory(base: BaseModel | None, spec: RunSpec, packed: Packed | None) -> int | None:
    if base is None:
        return None
    way, data = Way.of_run(spec), spec.training
    longest = 2 * data.longest_row if way.pairs else data.longest_row
    rows = Rows(spec.units(data.rows), data.tokens, data.learned_tokens, longest)
    here = replace(base, path=spec.base.path)
    return memory_of(here, spec.precision, way, rows, (spec.batch_size, packed))
