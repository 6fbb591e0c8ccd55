"""What a run was expected to take, beside what it took: told once, when its trainer has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afina.domain.foresight import Network, step_tokens, training_memory
from afina.domain.models import BaseModel
from afina.domain.runs import RunResult, RunSpec


@dataclass(frozen=True)
class Foresight:
    """Before a run: tokens that are billed, seconds of training, and the most memory; None where
    nobody knows."""

    trained_tokens: int
    seconds: float | None
    memory_bytes: int | None


def foresee(base: BaseModel | None, spec: RunSpec) -> Foresight:
    """From the run's spec and the rate that the base's probe measured."""
    rate = base.capabilities.get("train_tokens_per_s") if base is not None else None
    tokens = spec.training.tokens * spec.epochs
    return Foresight(
        trained_tokens=tokens,
        seconds=tokens / float(rate) if rate and spec.tune.kind == "lora" else None,
        memory_bytes=_memory(base, spec),
    )


def compared(
    base: BaseModel | None, spec: RunSpec, result: RunResult
) -> tuple[str, dict[str, Any]]:
    """A sentence, and the same as values: what was expected, and what was measured."""
    before = foresee(base, spec)
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
    }
    pairs = [
        f"{before.trained_tokens:,} trained tokens were expected, {result.trained_tokens:,} came",
        _pair(before.seconds, result.train_seconds, lambda s: f"{s:,.0f} s"),
        _pair(before.memory_bytes, result.peak_rss_bytes, lambda b: f"{b / 1e9:.2f} GB"),
    ]
    return "Estimate and truth: " + "; ".join(pair for pair in pairs if pair), data


def _pair(before: float | None, after: float, shown: Any) -> str:
    if before is None:
        return f"{shown(after)}, nobody knew before"
    return f"{shown(before)} expected, {shown(after)} measured"


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
    rows = max(1, spec.training.rows)
    largest = max(spec.bin_capacities)
    longest = spec.training.longest_row
    tokens = step_tokens(spec.training.tokens / rows, spec.batch_size, longest, largest)
    return training_memory(network, trained=trained, own=own, tokens=tokens, longest=longest)
