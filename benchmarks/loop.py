"""What a run does beside forward, backward and optimiser, and how long a checkpoint holds it up.

    python -m benchmarks.loop [--rows 64] [--batch 8] [--epochs 2] [--kind lora]

A whole run through its directory, without validation, as the worker's child does it. *Loop* is all
of the wall time between the first step's beginning and the last one's end that is neither forward
nor backward nor the optimiser: bins, counting, events, checkpoints. *Held up* is how long the
training thread spends on a checkpoint; the steps that run beside its writing are printed too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.training import DEFAULT_MODEL, shards_of

from afina.pipeline.launcher import trainer_environment


@dataclass
class Times:
    """Seconds of what is timed, and when each step began."""

    spent: dict[str, list[float]] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    end: float = 0.0

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, its seconds noted under `name`."""

        def run(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                self.spent.setdefault(name, []).append(time.perf_counter() - began)

        return run

    def at(self, point: str, step: int) -> None:
        """A hook of the run."""
        if point == "step":
            self.begun[step] = time.perf_counter()
        if point == "finishing":
            self.end = time.perf_counter()


def run(given: argparse.Namespace) -> dict[str, Any]:
    """One run; what it spent."""
    import torch

    from afina.domain.bins import bin_capacities
    from afina.domain.codec import encode
    from afina.domain.runs import BaseSpec, LoraSpec, OptimizerSpec, RunPaths, RunSpec, TuneSpec
    from afina.training import run as runs
    from afina.training.checkpoints import newest_checkpoint, write_checkpoint
    from afina.training.optimizer import AdamW
    from afina.training.steps import Stepper

    torch.set_num_threads(given.threads)
    times = Times()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data: Any = shards_of(given, root)
        steps = -(-data.rows // given.batch) * given.epochs
        record = json.loads((given.model / "afina.json").read_text())
        spec = RunSpec(
            format=1,
            job_id="benchmark",
            base=BaseSpec("base", str(given.model), record["sha256"]),
            lora=LoraSpec(),
            training=data,
            validation=None,
            epochs=given.epochs,
            batch_size=given.batch,
            optimizer=OptimizerSpec(1e-4, 0, steps),
            seed=0,
            precision="bf16",
            threads=given.threads,
            bin_capacities=bin_capacities(data.longest_row),
            end_tokens=(),
            tune=TuneSpec(given.kind, given.layers if given.kind == "blocks" else 0),
        )
        paths = RunPaths(root / "run")
        paths.root.mkdir()
        paths.spec.write_text(json.dumps(encode(spec)))
        Stepper._backward = times.timed("passes", Stepper._backward)  # type: ignore[method-assign]
        AdamW.update = times.timed("optimiser", AdamW.update)  # type: ignore[method-assign]
        runs._Run._save = times.timed("saving", runs._Run._save)  # type: ignore[method-assign]
        runs.__dict__["write_checkpoint"] = times.timed("written", write_checkpoint)
        runs._Run._settle = times.timed("waiting", runs._Run._settle)  # type: ignore[method-assign]
        runs.run_directory(paths.root, hooks=runs.Hooks(times.at))
        found = newest_checkpoint(paths)
        assert found is not None
        size = sum(file.stat().st_size for file in found.folder.iterdir())
    order = sorted(times.begun)
    ends = [*(times.begun[step] for step in order[1:]), times.end]
    lengths = [end - times.begun[step] for step, end in zip(order, ends, strict=True)]
    return {"spent": times.spent, "steps": lengths, "bytes": size}


def main() -> None:
    """Runs it in a process as the worker starts one, and prints what it spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kind", choices=("lora", "blocks", "full"), default="lora")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(run(given)))
        return
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loop", "--child", *sys.argv[1:]],
        check=True, capture_output=True, text=True, env=trainer_environment(given.threads),
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    spent = {name: sum(each) for name, each in found["spent"].items()}
    whole = sum(found["steps"])
    loop = whole - spent["passes"] - spent["optimiser"]
    per_epoch = len(found["steps"]) // given.epochs
    median = statistics.median(found["steps"])
    print(f"{given.kind}: {len(found['steps'])} steps of {median:.2f} s (median), {whole:.1f} s")
    for name in ("passes", "optimiser"):
        print(f"  {name:22}{spent[name]:8.2f} s  {spent[name] / whole:6.1%}")
    print(f"  {'loop':22}{loop:8.2f} s  {loop / whole:6.1%}, checkpoints included")
    # the last checkpoint is waited for, and nothing is trained beside it
    held = found["spent"]["saving"][:-1]
    written = found["spent"]["written"]
    share = max(held) / median
    print(
        f"  a checkpoint: {found['bytes'] / 1e6:.0f} MB, written in {max(written):.2f} s beside "
        f"the steps;\n  it holds them up for {max(held):.3f} s, {share:.1%} of a step, "
        f"and {spent['waiting']:.2f} s are waited for its end in all"
    )
    beside = [found["steps"][n * per_epoch] for n in range(1, given.epochs)]
    print(f"  the steps beside its writing: {', '.join(f'{s:.2f}' for s in beside)} s")


if __name__ == "__main__":
    main()
