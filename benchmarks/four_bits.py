"""What a base in 4 bits saves and costs: LoRA over 16 and over 4 bits, and DoRA, on the same rows.

    python -m benchmarks.four_bits [--rows 8] [--epochs 1]

Each run is a process of its own. Printed: the memory that a process held when the network stood and
at most, the tokens a second of its steps, the seconds of loading, and the last step's loss.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from benchmarks.training import DEFAULT_MODEL, shards_of

from afina.pipeline.launcher import trainer_environment

KINDS = ("lora 16", "lora 4", "dora 16", "dora 4")
MIB = 1 << 20


def run(given: argparse.Namespace) -> dict[str, float]:
    """One run's figures."""
    import torch

    from afina.data.shards import Shards
    from afina.domain.bins import bin_capacities
    from afina.domain.runs import BaseSpec, LoraSpec, OptimizerSpec, RunSpec, TuneSpec
    from afina.training.methods import build_network
    from afina.training.optimizer import AdamW
    from afina.training.steps import Stepper

    torch.set_num_threads(given.threads)
    kind, bits = given.kind.split()
    with tempfile.TemporaryDirectory() as folder:
        data = shards_of(given, Path(folder))
        rows = Shards.open(Path(data.path))  # type: ignore[attr-defined]
        steps = -(-len(rows) // given.batch) * given.epochs
        spec = RunSpec(
            format=1,
            job_id="benchmark",
            base=BaseSpec("base", str(given.model), ""),
            lora=LoraSpec(),
            training=data,  # type: ignore[arg-type]
            validation=None,
            epochs=given.epochs,
            batch_size=given.batch,
            optimizer=OptimizerSpec(1e-4, 0, steps),
            seed=0,
            precision="bf16",
            threads=given.threads,
            bin_capacities=bin_capacities(int(rows.lengths.max())),
            end_tokens=(),
            tune=TuneSpec(kind, base_bits=int(bits)),  # type: ignore[arg-type]
        )
        began = time.perf_counter()
        network = build_network(spec)
        loaded = time.perf_counter() - began
        standing = psutil.Process().memory_info().rss
        stepper = Stepper(spec, network, AdamW(spec.optimizer, network.adapter.masters), rows)
        began = time.perf_counter()
        losses = [stepper.take(step + 1).loss for step in range(steps)]
        seconds = time.perf_counter() - began
        return {
            "loaded": loaded,
            "standing": standing / MIB,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
            "rate": float(rows.lengths.sum()) * given.epochs / seconds,
            "loss": losses[-1],
        }


def main() -> None:
    """Runs all kinds and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--kind", choices=KINDS)
    given = parser.parse_args()
    if given.kind:
        print(json.dumps(run(given)))
        return
    print(f"{'':10}{'loading s':>10}{'standing MiB':>14}{'peak MiB':>10}{'tok/s':>8}{'loss':>9}")
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.four_bits", "--kind", kind]
        for name in ("model", "rows", "epochs", "batch", "threads"):
            command += [f"--{name}", str(getattr(given, name))]
        command += ["--apart"] if given.apart else []
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=trainer_environment(2)
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{kind:10}{found['loaded']:10.1f}{found['standing']:14.0f}{found['peak']:10.0f}"
            f"{found['rate']:8.0f}{found['loss']:9.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
