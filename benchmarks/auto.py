"""What a learning rate and a batch size do to a voice: the measurement behind `auto`.

    python -m benchmarks.auto [--seeds 2] [--epochs 3] RATE,BATCH [RATE,BATCH …]

Tunes the starter on the bard's 50 rows and judges on the held-out questions: mean log-likelihood a
token of the held-out answers, and the share of greedy answers with two early-modern markers.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afina.domain.auto import total_steps, warmup_steps
from afina.domain.bins import bin_capacities
from afina.domain.runs import BaseSpec, DataSpec, LoraSpec, OptimizerSpec, ParityPrompt, RunSpec
from afina.model.base import load_base
from afina.text.renderer import Renderer
from afina.training.decoding import greedy_rows
from afina.training.evaluation import evaluate
from afina.training.network import TrainedNetwork
from afina.training.optimizer import AdamW
from afina.training.steps import Stepper

ROOT = Path(__file__).parent.parent
MODEL = ROOT / ".afina" / "models" / "smollm2-135m-instruct"
MARKER = re.compile(
    r"\b(?:thou|thee|thy|thine|doth|hath|hast|dost|’tis|prithee|ere|\w{3,}eth)\b", re.I
)
NEW_TOKENS = 60


class BardRows:
    """Rendered rows of one of the bard's files, in memory."""

    def __init__(self, renderer: Renderer, pairs: list[tuple[str, str]]) -> None:
        self.rows = []
        for question, answer in pairs:
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            row = renderer.training_row(messages)
            self.rows.append((np.array(row.ids, np.int32), np.array(row.learned, np.bool_)))
        self.lengths = np.array([len(ids) for ids, _ in self.rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return self.rows[index]


def pairs_of(name: str) -> list[tuple[str, str]]:
    text = (ROOT / "examples" / "bard" / name).read_bytes().decode("cp1252")
    return [(q, a) for q, a in list(csv.reader(io.StringIO(text)))[1:] if a.strip()]


class Judge:
    """Judges a network by the held-out questions."""

    def __init__(self, renderer: Renderer) -> None:
        held_out = pairs_of("held_out.csv")
        self.renderer = renderer
        self.rows = BardRows(renderer, held_out)
        self.capacities = bin_capacities(0)
        self.prompts = tuple(
            ParityPrompt("", tuple(renderer.prompt([{"role": "user", "content": question}])))
            for question, _ in held_out
        )

    def words(self, network: TrainedNetwork) -> str:
        loss, _ = evaluate(network, self.rows, range(len(self.rows)), self.capacities)
        ends = self.renderer.end_tokens
        answers = greedy_rows(network, self.prompts, NEW_TOKENS, ends, self.capacities)
        texts = [self.renderer.tokenizer.decode(list(answer.ids)) for answer in answers]
        share = sum(len(MARKER.findall(text)) >= 2 for text in texts) / len(texts)
        return f"held-out log-likelihood {-loss:.3f}, share with markers {share:.1f}"


def spec_of(rate: float, batch: int, seed: int, rows: int, epochs: int) -> RunSpec:
    steps = total_steps(rows, batch, epochs)
    return RunSpec(
        format=1,
        job_id="auto",
        base=BaseSpec("starter", str(MODEL), ""),
        lora=LoraSpec(),
        training=DataSpec("", "", rows, 0, 0, 0),
        validation=None,
        epochs=epochs,
        batch_size=batch,
        optimizer=OptimizerSpec(rate, warmup_steps(steps), steps),
        seed=seed,
        precision="bf16",
        threads=torch.get_num_threads(),
        bin_capacities=bin_capacities(0),
        end_tokens=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=["1e-3,4"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    renderer = Renderer.load(MODEL)
    rows = BardRows(renderer, pairs_of("questions.csv"))
    judge = Judge(renderer)
    base = TrainedNetwork(load_base(MODEL, "bf16"), LoraSpec(), seed=0)
    print(f"base model: {judge.words(base)}", flush=True)
    for setting in given.settings:
        rate, batch = setting.split(",")
        for seed in range(given.seeds):
            spec = spec_of(float(rate), int(batch), seed, len(rows), given.epochs)
            network = TrainedNetwork(load_base(MODEL, "bf16"), spec.lora, seed)
            stepper = Stepper(spec, network, AdamW(spec.optimizer, network.adapter.masters), rows)
            began = time.perf_counter()
            losses = [stepper.take(s).loss for s in range(1, spec.optimizer.total_steps + 1)]
            seconds = time.perf_counter() - began
            print(
                f"rate {rate}, batch {batch}, seed {seed}: last loss {np.mean(losses[-10:]):.2f}, "
                f"{judge.words(network)}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
