"""Estimates beside the truth, over the runs of a data directory (or of several).

    python -m benchmarks.estimates DATA [DATA ...] [--learn]

Reads `runs/*/spec.json` and `result.json` in the order in which the runs ended; prints estimated
and measured tokens, seconds and memory of each run that succeeded, and the median errors. Seconds
come from the measurement at the pull, with `--learn` from the runs that ended before: those mean
something only where the machine was quiet, or always equally busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from afina.domain.codec import decode
from afina.domain.models import BaseModel
from afina.domain.rates import PastRun, TrainingRate, Workload, learned_rate
from afina.domain.runs import RunPaths, RunSpec
from afina.errors import AfinaError
from afina.pipeline.foresight import foresee
from afina.pipeline.run_files import read_result, read_spec


def ended(folder: Path) -> float:
    """When a run's result was written; runs without one come first and are passed over."""
    result = RunPaths(folder).result
    return result.stat().st_mtime if result.exists() else 0.0


def workload(spec: RunSpec) -> Workload:
    return Workload(spec.base.sha256, spec.tune.kind, spec.tune.base_bits, spec.method)


def rate_of(base: BaseModel | None, spec: RunSpec, past: list[PastRun]) -> TrainingRate | None:
    """From the runs that ended before, else what the base's probe measured."""
    step = spec.training.tokens * spec.epochs / max(1, spec.optimizer.total_steps)
    found = learned_rate(past, workload(spec), step)
    probed = base.capabilities.get("train_tokens_per_s") if base is not None else None
    if found is None and probed and spec.tune.kind == "lora":
        return TrainingRate(float(probed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--learn", action="store_true")
    given = parser.parse_args()
    errors: dict[str, list[float]] = {"tokens": [], "seconds": [], "memory": []}
    print(f"{'run':16} {'kind':7} {'tokens':>15} {'seconds':>15} {'memory, MB':>15}")
    past: list[PastRun] = []
    for folder in sorted((p for d in given.data for p in (d / "runs").iterdir()), key=ended):
        paths = RunPaths(folder)
        try:
            result, spec = read_result(paths), read_spec(paths)
        except (AfinaError, OSError, ValueError):
            continue
        if result is None or result.outcome != "succeeded" or result.stopped_early:
            continue
        record = Path(spec.base.path) / "afina.json"
        base = decode(BaseModel, json.loads(record.read_text())) if record.exists() else None
        found = foresee(base, spec, rate_of(base, spec, past if given.learn else []))
        past.append(
            PastRun(workload(spec), result.trained_tokens, result.steps, result.train_seconds, None)
        )
        told = {
            "tokens": (found.trained_tokens, result.trained_tokens),
            "seconds": (found.seconds, result.train_seconds),
            "memory": (found.memory_bytes, result.peak_rss_bytes),
        }
        cells = []
        for name, (before, after) in told.items():
            if before is None or not after:
                cells.append("–")
                continue
            errors[name].append(abs(before - after) / after)
            scale = 1e6 if name == "memory" else 1
            cells.append(f"{before / scale:,.0f} / {after / scale:,.0f}")
        print(f"{folder.name[-12:]:16} {spec.tune.kind:7} " + " ".join(f"{c:>15}" for c in cells))
    for name, values in errors.items():
        if values:
            print(
                f"median error of {name}: {statistics.median(values):.1%} over {len(values)} runs"
            )


if __name__ == "__main__":
    main()
