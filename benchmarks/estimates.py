"""Estimates beside the truth, over the runs of a data directory (or of several).

    python benchmarks/estimates.py DATA [DATA ...]

Reads `runs/*/spec.json` and `result.json`; prints estimated and measured tokens, seconds and memory
of each run that succeeded, and the median errors. Seconds mean something only where the machine was
quiet.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from afina.domain.codec import decode
from afina.domain.models import BaseModel
from afina.domain.runs import RunPaths
from afina.errors import AfinaError
from afina.pipeline.foresight import foresee
from afina.pipeline.run_files import read_result, read_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    given = parser.parse_args()
    errors: dict[str, list[float]] = {"tokens": [], "seconds": [], "memory": []}
    print(f"{'run':16} {'kind':7} {'tokens':>15} {'seconds':>15} {'memory, MB':>15}")
    for folder in sorted(p for data in given.data for p in (data / "runs").iterdir()):
        paths = RunPaths(folder)
        try:
            result, spec = read_result(paths), read_spec(paths)
        except (AfinaError, OSError, ValueError):
            continue
        if result is None or result.outcome != "succeeded" or result.stopped_early:
            continue
        record = Path(spec.base.path) / "afina.json"
        base = decode(BaseModel, json.loads(record.read_text())) if record.exists() else None
        found = foresee(base, spec)
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
