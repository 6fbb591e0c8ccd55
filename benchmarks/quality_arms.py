"""The arms of `benchmarks/quality.py`: how each comes to its answers.

    plain            the base model, asked as a tuned one is
    prompted         the base model with instructions and examples; seeds draw the examples
    trl              TRL's SFTTrainer, everything left at its defaults
    trl-documented   the same with what TRL's page on adapters recommends
    auto             afina, everything left at `auto`
    auto:k=v,…       afina with some of it set (see `KNOBS`), to look for something better

afina's arms take a job's road: the file is checked, tokenised and resolved by the functions that
the worker calls, and the trainer is the worker's child process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.quality_engine import Served
from benchmarks.quality_task import Task

from afina.data.check import check_file
from afina.data.limits import limits_of
from afina.data.shards import ShardOptions, build_shards
from afina.domain.auto import auto_epochs
from afina.domain.jobs import Hyperparameters, Job, JobStatus
from afina.domain.methods import Extension, Tuning
from afina.domain.runs import RunPaths, RunSpec
from afina.inside_settings import TrainingSettings
from afina.pipeline.launcher import trainer_environment
from afina.pipeline.resolve import Resolution, resolve_run
from afina.pipeline.run_files import read_result, write_spec
from afina.settings import child_environment

ARMS = ("plain", "prompted", "trl", "trl-documented", "auto")
KNOBS: Mapping[str, str] = {
    "multiplier": "job", "epochs": "job", "batch": "job",
    "kind": "tuning", "rank": "tuning", "alpha": "tuning", "dropout": "tuning",
    "rank_stabilised": "tuning", "layers": "tuning", "targets": "tuning",
    "rate": "optimizer", "weight_decay": "optimizer", "warmup": "optimizer",
    "final_fraction": "optimizer",
}  # fmt: skip
_FIELDS = {"targets": "target_modules", "rate": "learning_rate", "warmup": "warmup_steps"}
"""What an arm `auto:…` may set: what a job can, and what lies in the optimiser's spec."""


@dataclass(frozen=True)
class Answered:
    """What an arm said to the held-out questions, and how it came about."""

    arm: str
    seed: int
    answers: list[str]
    likelihood: float
    """Nats a token of the held-out reference answers; nearer to 0 is better."""
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all arms share."""

    served: Served
    cache: Path
    threads: int

    def answered(self, task: Task, arm: str, seed: int) -> Answered:
        """An arm's answers, from the cache where they stand there."""
        folder = self.cache / f"{task.name}-{task.sha256[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        spec = afina_spec(self, task, arm, seed) if arm.startswith("auto") else None
        path = folder / f"{_slug(arm)}-{seed}{'' if spec is None else '-' + _digest(spec)}.json"
        if path.exists():
            return Answered(**json.loads(path.read_text()))
        room = folder / path.stem
        if spec is not None:
            found = self._ask(task, arm, seed, *train_afina(self, task, spec, room))
        elif arm.startswith("trl"):
            found = self._ask(task, arm, seed, *train_peer(self, task, arm, seed, room))
        else:
            found = self._ask(task, arm, seed, None, {})
        path.write_text(json.dumps(asdict(found), ensure_ascii=False, indent=1))
        return found

    def _ask(
        self, task: Task, arm: str, seed: int, adapter: str | None, facts: Mapping[str, Any]
    ) -> Answered:
        prompted = arm == "prompted"
        chats = [task.prompted_chat(r, seed) if prompted else task.chat(r) for r in task.held_out]
        answers = self.served.answers(chats, adapter, task.max_tokens)
        wanted = [row.answer for row in task.held_out]
        likelihood = self.served.likelihood(chats, wanted, adapter)
        return Answered(arm, seed, answers, likelihood, facts)


def kept(cache: Path, task: Task) -> dict[str, list[Answered]]:
    """What stands in the cache, by arm; of answers under other numbers of `auto` the newest."""
    folder = cache / f"{task.name}-{task.sha256[:8]}"
    newest: dict[tuple[str, int], Answered] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        one = Answered(**json.loads(path.read_text()))
        newest[one.arm, one.seed] = one
    known = {arm: place for place, arm in enumerate(ARMS)}
    found: dict[str, list[Answered]] = {}
    for arm, seed in sorted(newest, key=lambda key: (known.get(key[0], len(known)), key)):
        found.setdefault(arm, []).append(newest[arm, seed])
    return found


def _slug(arm: str) -> str:
    return arm.replace(":", "-").replace("=", "").replace(",", "-")


def _digest(spec: RunSpec) -> str:
    """Of what the training depends on: where its files lie does not matter, nor does a field that
    came later, as long as it has its default."""
    value = {
        "base": spec.base.sha256,
        "data": spec.training.sha256,
        "numbers": [spec.epochs, spec.batch_size, spec.seed, spec.precision, spec.method],
        "parts": [_chosen(part) for part in (spec.lora, spec.optimizer, spec.tune)],
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _chosen(part: Any) -> dict[str, Any]:
    """The fields of a part of a spec that have no default, or not that."""
    every = [(field, getattr(part, field.name)) for field in fields(part)]
    return {field.name: value for field, value in every if value != field.default}


def afina_spec(bench: Bench, task: Task, arm: str, seed: int) -> RunSpec:
    """The run that a job for `task` becomes."""
    folder = bench.cache / f"{task.name}-{task.sha256[:8]}"
    file = folder / "rows.jsonl"
    file.write_bytes(task.file())
    served = bench.served
    limits = limits_of("supervised", False, served.renderer.context_tokens)
    report = check_file(file, limits, served.renderer)
    if report.errors:
        raise SystemExit(f"{file}: {report.counts}")
    data = build_shards(file, served.renderer, folder / "shards", ShardOptions(kind=report.kind))
    knobs = _knobs(arm)
    asked = Hyperparameters(
        n_epochs=knobs["job"].get("epochs", "auto"),
        batch_size=knobs["job"].get("batch", "auto"),
        learning_rate_multiplier=knobs["job"].get("multiplier", "auto"),
    )
    job = Job(
        id=f"{task.name}-{seed}",
        project_id="",
        status=JobStatus.VALIDATING,
        created_at=0,
        model=served.base.id,
        requested_model=served.base.id,
        training_file=file.name,
        seed=seed,
        hyperparameters=asked,
        extension=Extension(tuning=Tuning(**knobs["tuning"])),
    )
    resolution = Resolution(
        job=job,
        base=replace(served.base, path=str(served.folder)),
        training=data,
        validation=None,
        end_tokens=served.renderer.end_tokens,
        context_tokens=served.renderer.context_tokens,
        template_sha256=served.renderer.template_sha256,
    )
    spec, _ = resolve_run(resolution, TrainingSettings(threads=bench.threads))
    return replace(spec, optimizer=replace(spec.optimizer, **knobs["optimizer"]))


def _knobs(arm: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"job": {}, "tuning": {}, "optimizer": {}}
    for word in arm.partition(":")[2].split(","):
        if word:
            name, _, value = word.partition("=")
            found[KNOBS[name]][_FIELDS.get(name, name)] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    if name == "targets":
        return tuple(text.split("+"))
    return text if name == "kind" else json.loads(text)


def train_afina(bench: Bench, task: Task, spec: RunSpec, room: Path) -> tuple[str, dict[str, Any]]:
    """The tune's hash after a whole run, and what the run was."""
    paths = RunPaths(room)
    write_spec(paths, spec)
    _run([sys.executable, "-m", "afina.training", str(room)], trainer_environment(bench.threads))
    result = read_result(paths)
    if result is None:
        raise SystemExit(f"{room} has no result")
    steps = [json.loads(line)["data"] for line in paths.events.read_text().splitlines()
             if '"kind":"step"' in line.replace(" ", "")]  # fmt: skip
    last = [step["train_loss"] for step in steps[-4:]]
    folder = room / result.checkpoints[-1].directory
    adapter = bench.served.publish(folder, spec.tune.kind, task.sha256)
    return adapter, {
        "epochs": spec.epochs,
        "batch": spec.batch_size,
        "rate": spec.optimizer.learning_rate,
        "steps": result.steps,
        "seconds": round(result.train_seconds, 1),
        "last_loss": sum(last) / len(last),
    }


def train_peer(
    bench: Bench, task: Task, arm: str, seed: int, room: Path
) -> tuple[str, dict[str, Any]]:
    """The same for TRL, over as many epochs as afina's `auto` takes."""
    room.mkdir(parents=True, exist_ok=True)
    file = room / "rows.jsonl"
    file.write_bytes(task.file())
    settings = {
        "epochs": auto_epochs(len(task.rows)),
        "seed": seed,
        "threads": bench.threads,
        "documented": arm == "trl-documented",
    }
    facts = room / "facts.json"
    if not facts.exists():  # written last
        command = [sys.executable, "-m", "benchmarks.quality_peer", str(bench.served.folder)]
        _run([*command, str(file), str(room), json.dumps(settings)], child_environment())
    return bench.served.publish(room, "lora", task.sha256), json.loads(facts.read_text())


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {done.returncode}:\n"
                         f"{done.stderr[-3000:]}")  # fmt: skip
