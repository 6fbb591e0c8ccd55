"""Run directories over tiny models, ready for the trainer: real chats, real shards, real spec."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny import make_tiny_model

from afina.data.shards import build_shards
from afina.domain.bins import bin_capacities
from afina.domain.codec import decode, encode
from afina.domain.models import BaseModel
from afina.domain.runs import (
    BaseSpec,
    DataSpec,
    LoraSpec,
    OptimizerSpec,
    ParityPrompt,
    RunEvent,
    RunPaths,
    RunSpec,
)
from afina.text.renderer import Renderer

_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "says",
    "hello",
    "to",
    "thee",
    "in",
    "the",
    "old",
    "manner",
]


def chat_rows(count: int, seed: int = 0, longest: int = 20) -> list[dict[str, Any]]:
    """Chats of random lengths; every fifth has an earlier answer with weight 0."""
    source = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(source.choices(_WORDS, k=source.randint(1, most)))

    rows = []
    for number in range(count):
        messages: list[dict[str, Any]] = [{"role": "user", "content": words(8)}]
        if number % 5 == 0:
            messages += [
                {"role": "assistant", "content": words(6), "weight": 0},
                {"role": "user", "content": words(4)},
            ]
        messages.append({"role": "assistant", "content": words(longest)})
        rows.append({"messages": messages})
    return rows


def make_shards(model: Path, rows: list[dict[str, Any]], target: Path) -> DataSpec:
    """Shards of `rows` for a model folder."""
    target.mkdir(parents=True, exist_ok=True)
    blob = target / "rows.jsonl"
    blob.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_shards(blob, Renderer.load(model), target / "shards")


def make_run(root: Path, *, rows: int = 12, architecture: str = "llama", **changes: Any) -> RunSpec:
    """A run directory at `root` over a tiny model beside it; `changes` go into the spec."""
    model = root.parent / f"{root.name}-model"
    record: BaseModel = make_tiny_model(model, architecture=architecture)
    training = make_shards(model, chat_rows(rows), root.parent / f"{root.name}-data")
    validation = make_shards(model, chat_rows(5, seed=1), root.parent / f"{root.name}-valid")
    renderer = Renderer.load(model)
    prompts = [renderer.prompt(row["messages"][:1]) for row in chat_rows(3, seed=2)]
    fields: dict[str, Any] = {
        "format": 1,
        "job_id": "ftjob-tiny",
        "base": BaseSpec(record.id, record.path, record.sha256),
        "lora": LoraSpec(rank=4, alpha=8.0),
        "training": training,
        "validation": validation,
        "epochs": 2,
        "batch_size": 4,
        "seed": 7,
        "precision": "fp32",
        "threads": 1,
        "bin_capacities": bin_capacities(training.longest_row),
        "end_tokens": renderer.end_tokens,
        "validation_interval_steps": 2,
        "validation_batch_rows": 3,
        "parity_prompts": tuple(ParityPrompt(f"{i}", tuple(p)) for i, p in enumerate(prompts)),
        "parity_new_tokens": 8,
        **changes,
    }
    steps = -(-training.rows // fields["batch_size"]) * fields["epochs"]
    fields.setdefault("optimizer", OptimizerSpec(1e-2, 1, steps))
    spec = RunSpec(**fields)
    write_spec(root, spec)
    return spec


def write_spec(root: Path, spec: RunSpec) -> None:
    """Makes the run directory `root` with nothing but this spec in it."""
    root.mkdir(parents=True)
    RunPaths(root).spec.write_text(json.dumps(encode(spec)))


def read_events(root: Path) -> list[RunEvent]:
    """What events.jsonl says."""
    lines = RunPaths(root).events.read_text().splitlines()
    return [decode(RunEvent, json.loads(line)) for line in lines]


def adapter_bytes_of(root: Path, checkpoint: Mapping[str, Any] | str) -> bytes:
    """The published weights of a checkpoint of a run."""
    directory = checkpoint if isinstance(checkpoint, str) else checkpoint["directory"]
    return (root / directory / "adapter_model.safetensors").read_bytes()
