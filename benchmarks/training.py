"""afina's trainer against TRL's SFTTrainer, side by side: same rows, same LoRA.

    python -m benchmarks.training [--model FOLDER] [--rows 64] [--repeats 3] [--batch 8]
                                  [--llama-factory PYTHON] [--only afina,llama-factory]
                                  [--precision bf16]

LLaMA-Factory runs beside both where the Python of its own environment is given; how to make that
stands in `benchmarks/llama_factory.py`.

Each run is a process of its own; runs alternate, in both orders. A run is one epoch over chats
that share a system prompt, with answers of 8 to 300 words. Tokens are counted as they are billed;
loading is left out, the first step's kernels are not. Peers get what makes them fastest here: the
precision in which torch multiplies faster (bf16, or fp32 on processors without products of bf16),
no gradient checkpointing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from afina.domain.runs import Precision
from afina.model.base import DTYPES
from afina.model.kernels.machine import can_have_kernels
from afina.pipeline.launcher import trainer_environment

DEFAULT_MODEL = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"
LEARNING_RATE = 2e-4
MATRIX_SECONDS = 0.5
GFLOP_OF_TOKEN = 0.47
"""What LoRA on the starter has to multiply for a token when nothing is shared: twice its layers'
weights forward and twice back, and the head for half of the tokens."""
TEXT = (
    "the claim was reported in time and the policy covers damage by water but not by wear so the "
    "clerk asks for the invoice a photo of the pipe and the date of the last repair before paying"
)
WORDS = TEXT.split()
SYSTEM = (
    "You are a careful claims clerk of an insurance company. Read the report of the customer, "
    "name the clause that applies, say what is covered and what is not, ask for what is missing, "
    "and answer politely in plain English. Never promise a payment. Never invent a clause. If the "
    "report is not about a claim, say so and name the department that can help instead."
)


@dataclass(frozen=True)
class Measured:
    """One run."""

    trainer: str
    tokens: int
    seconds: float
    peak_rss_mib: float
    last_loss: float
    matrix_rate: float = 0.0
    """GFLOP/s of torch's products, measured before it."""

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def chats(count: int, apart: bool = False) -> list[list[dict[str, str]]]:
    """Chats with answers of 8 to 300 words. They share a system prompt, or each has its own, as
    long."""
    source = random.Random(0)
    found = []
    for number in range(count):
        words = 8 + round(292 * (number / max(1, count - 1)) ** 2)
        question = " ".join(source.choices(WORDS, k=12))
        answer = " ".join(source.choices(WORDS, k=words))
        words_of_system = source.sample(SYSTEM.split(), k=len(SYSTEM.split()))
        system = " ".join(words_of_system) if apart else SYSTEM
        found.append(
            [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        )
    source.shuffle(found)
    return found


def matrix_rate(threads: int, dtype: torch.dtype) -> float:
    """GFLOP/s of this machine's products, of the shapes that training has."""
    torch.set_num_threads(threads)
    x, weight = (torch.randn(n, 576).to(dtype) for n in (1280, 1536))
    torch.nn.functional.linear(x, weight)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < MATRIX_SECONDS:
        torch.nn.functional.linear(x, weight)
        done += 1
    return done * 2 * 1280 * 576 * 1536 / (time.perf_counter() - began) / 1e9


def quickest(threads: int) -> tuple[float, Precision]:
    """The rate of the precision in which torch multiplies faster, and which that is."""
    rates = {name: matrix_rate(threads, dtype) for name, dtype in DTYPES.items()}
    name = max(rates, key=lambda one: rates[one])
    return rates[name], name


def shards_of(given: argparse.Namespace, folder: Path) -> object:
    from afina.data.shards import build_shards
    from afina.text.renderer import Renderer

    blob = folder / "rows.jsonl"
    blob.write_text(
        "".join(json.dumps({"messages": c}) + "\n" for c in chats(given.rows, given.apart))
    )
    return build_shards(blob, Renderer.load(given.model), folder / "shards")


def run_afina(given: argparse.Namespace, folder: Path) -> Measured:
    from afina.data.shards import Shards
    from afina.domain.bins import bin_capacities
    from afina.domain.runs import BaseSpec, LoraSpec, OptimizerSpec, RunSpec
    from afina.model.base import load_base
    from afina.training.network import TrainedNetwork
    from afina.training.optimizer import AdamW
    from afina.training.packing import steps_in_epoch
    from afina.training.steps import Stepper

    torch.set_num_threads(given.threads)
    data = shards_of(given, folder)
    rows = Shards.open(Path(data.path))  # type: ignore[attr-defined]
    steps = steps_in_epoch(len(rows), given.batch)
    spec = RunSpec(
        format=1,
        job_id="benchmark",
        base=BaseSpec("base", str(given.model), ""),
        lora=LoraSpec(),
        training=data,  # type: ignore[arg-type]
        validation=None,
        epochs=1,
        batch_size=given.batch,
        optimizer=OptimizerSpec(LEARNING_RATE, 0, steps),
        seed=0,
        precision=given.precision,
        threads=given.threads,
        bin_capacities=bin_capacities(data.longest_row),  # type: ignore[attr-defined]
        end_tokens=(),
    )
    network = TrainedNetwork(load_base(given.model, given.precision), spec.lora, spec.seed)
    stepper = Stepper(spec, network, AdamW(spec.optimizer, network.adapter.masters), rows)
    began = time.perf_counter()
    results = [stepper.take(step) for step in range(1, steps + 1)]
    seconds = time.perf_counter() - began
    return Measured("afina", sum(r.tokens for r in results), seconds, peak(), results[-1].loss)


def run_trl(given: argparse.Namespace, folder: Path) -> Measured:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from afina.data.shards import Shards
    from afina.domain.runs import LoraSpec

    torch.set_num_threads(given.threads)
    data = shards_of(given, folder)
    rows = Shards.open(Path(data.path))  # type: ignore[attr-defined]
    listed = []
    for index in range(len(rows)):
        ids, learned = rows.row(index)
        labels = [int(i) if flag else -100 for i, flag in zip(ids, learned, strict=True)]
        listed.append({"input_ids": ids.tolist(), "labels": labels})
    lora = LoraSpec()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(given.model, dtype=DTYPES[given.precision]),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=given.batch,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=given.precision == "bf16",
            gradient_checkpointing=False,
            max_length=None,
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=Dataset.from_list(listed),
        processing_class=AutoTokenizer.from_pretrained(given.model),
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=int(lora.alpha),
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Measured("trl", int(rows.lengths.sum()), seconds, peak(), float(losses[-1]))


def run_llama_factory(given: argparse.Namespace) -> Measured:
    """LLaMA-Factory on the same chats, in its own environment; it renders and tokenises them."""
    from afina.data.shards import Shards
    from afina.domain.runs import LoraSpec

    lora = LoraSpec()
    asked = {
        "finetuning_type": "lora",
        "lora_rank": lora.rank,
        "lora_alpha": int(lora.alpha),
        "lora_target": ",".join(lora.target_modules),
        "learning_rate": LEARNING_RATE,
        "num_train_epochs": 1,
        "bf16": quickest(given.threads)[1] == "bf16",
    }
    with tempfile.TemporaryDirectory() as name:
        rows = Shards.open(Path(shards_of(given, Path(name)).path))  # type: ignore[attr-defined]
        found = llama_factory(given, Path(name), asked)
        tokens = int(rows.lengths.sum())
    facts = (found["seconds"], found["peak_rss_mib"], found["last_loss"])
    return Measured("llama-factory", tokens, *facts)


def llama_factory(
    given: argparse.Namespace, folder: Path, asked: dict[str, object]
) -> dict[str, float]:
    """What a run of LLaMA-Factory with the arguments `asked` measured."""
    listed = [{"messages": chat} for chat in chats(given.rows, given.apart)]
    (folder / "chats.json").write_text(json.dumps(listed))
    same = {
        "model_name_or_path": str(given.model),
        "per_device_train_batch_size": given.batch,
        "threads": given.threads,
    }
    script = Path(__file__).with_name("llama_factory.py")
    command = [str(given.llama_factory), str(script), str(folder), json.dumps(same | asked)]
    # as its user would start it: nothing of our environment
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return measured_of("llama-factory", done)


def measured_of(trainer: str, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a child said it measured."""
    for line in done.stdout.splitlines():
        if line.startswith("MEASURED "):
            found: dict[str, Any] = json.loads(line.removeprefix("MEASURED "))
            return found
    raise SystemExit(f"{trainer} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(given: argparse.Namespace) -> None:
    rate, quicker = quickest(given.threads)
    if given.child == "trl":
        given.precision = quicker
    elif given.precision is None:
        given.precision = "bf16" if can_have_kernels() else quicker
    with tempfile.TemporaryDirectory() as name:
        run = run_afina if given.child == "afina" else run_trl
        measured = replace(run(given, Path(name)), matrix_rate=rate)
    print("MEASURED " + json.dumps(asdict(measured)))


def measure(given: argparse.Namespace, trainer: str) -> Measured:
    if trainer == "llama-factory":
        return run_llama_factory(given)
    command = [
        sys.executable,
        "-m",
        "benchmarks.training",
        "--child",
        trainer,
        "--model",
        str(given.model),
    ]
    for name in ("rows", "batch", "threads"):
        command += [f"--{name}", str(getattr(given, name))]
    if given.apart:
        command.append("--apart")
    if given.precision:
        command += ["--precision", given.precision]
    # afina's trainer as its worker starts it, the peer as its user would
    environment = trainer_environment(given.threads) if trainer == "afina" else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return Measured(**measured_of(trainer, done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--apart", action="store_true", help="no system prompt that all share")
    parser.add_argument("--precision", choices=tuple(DTYPES), help="of ours")
    parser.add_argument("--llama-factory", type=Path, help="the Python of its environment")
    parser.add_argument("--only", help="measure these, separated by commas")
    parser.add_argument("--child", choices=("afina", "trl"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given)
        return
    names = ["afina", "trl", *(["llama-factory"] if given.llama_factory else [])]
    if given.only:
        names = [name for name in names if name in given.only.split(",")]
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for repeat in range(given.repeats):
        for trainer in names if repeat % 2 == 0 else reversed(names):
            one = measure(given, trainer)
            found[trainer].append(one)
            print(line_of(one), flush=True)
    print_table(given, found)


def line_of(one: Measured) -> str:
    line = (
        f"  {one.trainer:14} {one.rate:7.0f} tokens/s  {one.seconds:6.1f} s  "
        f"peak {one.peak_rss_mib:5.0f} MiB  last loss {one.last_loss:.3f}"
    )
    if not one.matrix_rate:
        return line
    share = one.rate * GFLOP_OF_TOKEN / one.matrix_rate
    return f"{line}  {share:4.0%} of {one.matrix_rate:.0f} GFLOP/s"


def print_table(given: argparse.Namespace, found: dict[str, list[Measured]]) -> None:
    """Medians, spreads, and how many times as fast as each other one the first is."""
    medians = {n: statistics.median(one.rate for one in runs) for n, runs in found.items()}
    tokens = next(iter(found.values()))[0].tokens
    print(f"LoRA training, {given.rows} chats, {tokens} tokens:")
    for name, runs in found.items():
        rates = [one.rate for one in runs]
        memory = max(one.peak_rss_mib for one in runs)
        line = (
            f"  {name:14} median {medians[name]:.0f} tokens/s "
            f"({min(rates):.0f} to {max(rates):.0f}), peak {memory:.0f} MiB"
        )
        if name != "afina" and "afina" in medians:
            line += f": afina is {medians['afina'] / medians[name]:.1f} times as fast"
        print(line)


if __name__ == "__main__":
    main()
