"""Tuning the top blocks against LoRA on all of them: the same rows, epochs and batches, bf16.

    python -m benchmarks.last_layers [--rows 32] [--epochs 3] [--layers 7] [--apart]
                                     [--llama-factory PYTHON]

With the Python of its environment (`benchmarks/llama_factory.py` says how to make it) LLaMA-Factory
tunes as many of the top blocks beside them, its `freeze`.

Each run is a process of its own, started as a worker starts trainers: memory is touched while the
base is loaded. Runs alternate, in both orders. Timed is all that a run does
between loading and its last step: what the frozen part says about each row is computed and written
within it. Checkpoints are left out on both sides. `--apart`: chats without a shared system prompt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.training import DEFAULT_MODEL, llama_factory, shards_of

from afina.pipeline.launcher import trainer_environment

KINDS = ("lora", "blocks", "blocks, nothing kept")
PEER = "LLaMA-Factory's freeze"


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def run(given: argparse.Namespace) -> dict[str, float]:
    """One run: seconds of making the frozen part's outputs, and of each epoch."""
    import torch

    from afina.data.shards import Shards
    from afina.domain.bins import bin_capacities
    from afina.domain.runs import BaseSpec, LoraSpec, OptimizerSpec, RunSpec, TuneSpec
    from afina.training.heap import WarmHeap, heap_for
    from afina.training.methods import build_network
    from afina.training.optimizer import AdamW
    from afina.training.steps import Stepper

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = shards_of(given, Path(folder))
        rows = Shards.open(Path(data.path))  # type: ignore[attr-defined]
        steps = -(-len(rows) // given.batch)
        kept = given.kind != KINDS[2]
        kind = "lora" if given.kind == "lora" else "blocks"
        spec = RunSpec(
            format=1,
            job_id="benchmark",
            base=BaseSpec("base", str(given.model), ""),
            lora=LoraSpec(),
            training=data,  # type: ignore[arg-type]
            validation=None,
            epochs=given.epochs,
            batch_size=given.batch,
            optimizer=OptimizerSpec(1e-4, 0, steps * given.epochs),
            seed=0,
            precision="bf16",
            threads=given.threads,
            bin_capacities=bin_capacities(int(rows.lengths.max())),
            end_tokens=(),
            tune=TuneSpec(kind, given.layers, keep_frozen_output=kept),  # type: ignore[arg-type]
        )
        heap = WarmHeap(heap_for(given.model))
        network = build_network(spec)
        heap.release()
        seconds: dict[str, float] = {}
        with timed(seconds, "outputs"):
            known = network.prepare(rows, Path(folder) / "frozen", lambda: False)
        stepper = Stepper(spec, network, AdamW(spec.optimizer, network.adapter.masters), known)
        result = None
        for epoch in range(given.epochs):
            with timed(seconds, f"epoch {epoch + 1}"):
                for step in range(epoch * steps, (epoch + 1) * steps):
                    result = stepper.take(step + 1)
        assert result is not None
        return seconds | {"loss": result.loss, "tokens": float(rows.lengths.sum() * given.epochs)}


def measure(given: argparse.Namespace, kind: str) -> dict[str, float]:
    """A run in a process of its own, as the worker starts trainers."""
    if kind == PEER:
        return freeze(given)
    command = [sys.executable, "-m", "benchmarks.last_layers", "--kind", kind]
    for name in ("model", "rows", "epochs", "layers", "batch", "threads"):
        command += [f"--{name}", str(getattr(given, name))]
    command += ["--apart"] if given.apart else []
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=trainer_environment(given.threads)
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def freeze(given: argparse.Namespace) -> dict[str, float]:
    """The peer's run, epochs as long as each other."""
    asked: dict[str, object] = {
        "finetuning_type": "freeze",
        "freeze_trainable_layers": given.layers,
        "num_train_epochs": given.epochs,
        "learning_rate": 1e-4,
    }
    with tempfile.TemporaryDirectory() as folder:
        measured = llama_factory(given, Path(folder), asked)
    each = measured["seconds"] / given.epochs
    epochs = {f"epoch {number + 1}": each for number in range(given.epochs)}
    return {"outputs": 0.0, "loss": measured["last_loss"], **epochs}


def total(found: dict[str, float]) -> float:
    return sum(v for name, v in found.items() if name == "outputs" or name.startswith("epoch"))


def main() -> None:
    """Runs all kinds, alternating, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--llama-factory", type=Path, help="the Python of its environment")
    parser.add_argument("--only", help="measure these, separated by semicolons")
    parser.add_argument("--kind", choices=KINDS)
    given = parser.parse_args()
    if given.kind:
        print(json.dumps(run(given)))
        return
    kinds = [*KINDS, PEER] if given.llama_factory else list(KINDS)
    if given.only:
        kinds = [kind for kind in kinds if kind in given.only.split(";")]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(given.repeats):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            found[kind].append(measure(given, kind))
    base = statistics.median(total(one) for one in found[kinds[0]])
    tokens = next(one["tokens"] for runs in found.values() for one in runs if "tokens" in one)
    print(f"{given.rows} chats, {tokens:.0f} tokens in {given.epochs} epochs, top {given.layers}")
    print(f"{'':22}{'outputs':>9}{'epoch 1':>9}{'last':>9}{'all s':>9}{'tok/s':>8}{'times':>7}")
    for kind, runs in found.items():
        one = sorted(runs, key=total)[len(runs) // 2]
        seconds = (one["outputs"], one["epoch 1"], one[f"epoch {given.epochs}"], total(one))
        cells = "".join(f"{value:9.2f}" for value in seconds)
        print(f"{kind:22}{cells}{tokens / total(one):8.0f}{base / total(one):7.2f}")


if __name__ == "__main__":
    main()
