"""Estimates beside the truth, over ten varied jobs: one job a call, so that each is short.

    python -m benchmarks.estimates DATA run [--job NUMBER] [--methods] [--alone]   the next job
    python -m benchmarks.estimates DATA show [--learn] [--processor]     the table, median errors

`run` asks `afina data estimate` first, as a user would; then it starts the platform in DATA, runs
the job with the official client and stops when it has succeeded. Both are noted in
DATA/estimates.jsonl. The first call needs a base: `afina models pull smollm2-135m-instruct --data
DATA`, which measures the machine. Figures mean something only where the machine is quiet.

`show` prints, of each job, estimated and measured tokens, seconds from creating it to its success,
and the most memory. With `--learn` it says instead, from the run directories alone, what the code
as it is now would have said of the seconds of training and of the memory, from the runs that ended
before each: so a change of the estimator is judged without training again. With `--methods` the
ten jobs are small and each tunes in another way.

With `--alone` the trainer runs without the platform and without giving way to others.

Beside other work seconds say nothing, and the trainer's own processor time still does: with
`--processor` it stands for the seconds of training, and each job is foretold from all the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from benchmarks.estimate_jobs import METHODS, SORTS, Sort
from benchmarks.first_answer import free_port, wait_for_platform
from openai import OpenAI

from afina.api.job_extension import TuningShape
from afina.cli.bases import find_base
from afina.data.kinds import RowKind
from afina.data.shards import ShardOptions, build_shards
from afina.domain.codec import decode
from afina.domain.jobs import Hyperparameters, Job, JobStatus
from afina.domain.methods import Extension
from afina.domain.models import BaseModel
from afina.domain.rates import Costs, PastRun, TrainingRate, Workload, learned_rate
from afina.domain.runs import RunPaths, RunResult, RunSpec
from afina.domain.ways import Way
from afina.errors import AfinaError
from afina.inside_settings import TrainingSettings
from afina.pipeline.foresight import foresee, load_of
from afina.pipeline.launcher import trainer_environment
from afina.pipeline.resolve import Resolution, resolve_run
from afina.pipeline.run_files import read_result, read_spec, write_spec
from afina.service.packing_ahead import packed_run
from afina.service.rates import costs_of
from afina.settings import Settings, child_environment
from afina.text.renderer import Renderer

MODEL = "smollm2-135m-instruct"
PATIENCE_S = 900.0
LOADING_PROCESSOR_S = 4.0
"""Processor time of a trainer beside its steps: it loads, saves and proves itself."""
Told = dict[str, tuple[float | None, float | None]]


def noted(data: Path) -> list[dict[str, Any]]:
    path = data / "estimates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_one(data: Path, number: int | None, sorts: Sequence[Sort], *, alone: bool) -> None:
    """Estimates and runs the job of this number, or the first one that is not there."""
    done = {line["job"] for line in noted(data)}
    left = [n for n in range(len(sorts)) if n not in done] if number is None else [number]
    if not left:
        raise SystemExit("All jobs are there: `show` prints the table.")
    sort = sorts[left[0]]
    path = data / f"estimates-{left[0]}.jsonl"
    path.write_bytes(sort.content())
    line: dict[str, Any] = {"job": left[0], "name": sort.name}
    line["estimate"] = asked(data, path, sort)
    if alone:
        line |= trained_alone(data, path, sort, line["estimate"])
        keep(data, line)
        return
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "afina.cli", "up", "--port", str(port)],
        env=child_environment(AFINA_DATA=str(data)),
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_platform(url, process)
        key = (data / "api-key").read_text().strip()
        line |= trained(OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0), path, sort)
    finally:
        process.terminate()
        process.wait(60)
    keep(data, line)


def keep(data: Path, line: dict[str, Any]) -> None:
    """Notes a job that has ended, and shows all."""
    result = read_result(RunPaths(data / "runs" / line["run"]))
    line["memory_bytes"] = result.peak_rss_bytes if result else None
    with (data / "estimates.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    show(data)


def asked(data: Path, path: Path, sort: Sort) -> dict[str, Any]:
    """What `afina data estimate` says."""
    options = [
        word
        for name, value in sort.hyperparameters.items()
        for word in (f"--{name.removeprefix('n_').replace('_', '-')}", str(value))
    ]
    for name, value in sort.tuning.items():
        option = "--tuning" if name == "kind" else f"--{name.replace('_', '-')}"
        shown = ",".join(value) if isinstance(value, list) else str(value)
        options += [option] if value is True else [option, shown]
    options += ["--method", sort.method]
    command = [sys.executable, "-m", "afina.cli", "data", "estimate", str(path), "--json", *options]
    said = subprocess.run(
        [*command, "--data", str(data), "--model", MODEL],
        capture_output=True,
        check=True,
        text=True,
    )
    told: dict[str, Any] = json.loads(said.stdout)
    return told


def trained(client: OpenAI, path: Path, sort: Sort) -> dict[str, Any]:
    """The job's tokens and its seconds, from creating it to its success."""
    file = client.files.create(file=(path.name, path.read_bytes()), purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        seed=1,
        method={  # type: ignore[arg-type]
            "type": sort.method,
            sort.method: {"hyperparameters": sort.hyperparameters},
        },
        extra_body={"afina": {"tuning": sort.tuning, "gate": {"policy": "off"}}},
    )
    processor = 0.0
    while job.status not in ("succeeded", "failed", "cancelled"):
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"the job still says {job.status}")
        time.sleep(0.2)
        processor = max(processor, trainer_seconds())
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        raise SystemExit(f"the job ended as {job.status}: {job.error}")
    seconds = round(time.monotonic() - began, 2)
    return {
        "run": job.id,
        "seconds": seconds,
        "trained_tokens": job.trained_tokens,
        "processor_s": round(processor, 2),
    }


def trained_alone(data: Path, path: Path, sort: Sort, said: dict[str, Any]) -> dict[str, Any]:
    """The same by the trainer's own command, from the spec that a worker would write."""
    base = find_base(Settings(data=data), MODEL)
    kind = RowKind.PREFERENCE if sort.method == "dpo" else RowKind.CHAT
    renderer = Renderer.load(Path(base.path))
    shards = build_shards(path, renderer, data / "shards", ShardOptions(kind=kind))
    numbers = Hyperparameters(**sort.hyperparameters, beta="auto" if sort.method == "dpo" else None)
    tuning = TuningShape.model_validate(said["tuning"]).value()
    run = f"ftjob-{sort.name.replace(' ', '-')}"
    job = Job(
        run, "p", JobStatus.QUEUED, 0, base.id, base.id, "file-1", 1,
        hyperparameters=numbers, method=sort.method, extension=Extension(tuning=tuning),
    )  # fmt: skip
    given = Resolution(job, base, shards, None, renderer.end_tokens, 8192, "")
    spec, _ = resolve_run(given, TrainingSettings())
    paths = RunPaths(data / "runs" / run)
    write_spec(paths, spec)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "afina.training", str(paths.root)]
    subprocess.run(command, env=trainer_environment(spec.threads), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = read_result(paths)
    return {
        "run": run,
        "seconds": round(time.monotonic() - began, 2),
        "trained_tokens": result.trained_tokens if result else 0,
        "processor_s": round(processor, 2),
    }


def trainer_seconds() -> float:
    """Processor time of the trainer so far. A trainer gives way to everybody, so its seconds say
    nothing beside other work: where this process was started with priority over others, the trainer
    gets the same."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            if "afina.training" in child.cmdline():
                times = child.cpu_times()
                found = max(found, times.user + times.system)
                for thread in child.threads() if own < 0 else ():
                    os.setpriority(os.PRIO_PROCESS, thread.id, own)
    return found


def show(data: Path) -> None:
    rows: dict[str, Told] = {}
    for line in noted(data):
        said = line["estimate"]
        rows[line["name"]] = {
            "tokens": (said["trained_tokens"], line["trained_tokens"]),
            "seconds": (said["seconds"], line["seconds"]),
            "memory": (said["memory_bytes"], line["memory_bytes"]),
        }
    print_table(rows)


def show_learned(data: Path, *, processor: bool) -> None:
    """From specs and results alone, in the order in which the runs ended."""
    notes = {line["run"]: line for line in noted(data)}
    runs: list[tuple[str, RunSpec, RunResult]] = []
    for folder in sorted((data / "runs").iterdir(), key=ended):
        paths = RunPaths(folder)
        try:
            result, spec = read_result(paths), read_spec(paths)
        except (AfinaError, OSError, ValueError):
            continue
        if result is None or result.outcome != "succeeded" or result.stopped_early:
            continue
        note = notes.get(folder.name, {})
        if processor and "processor_s" not in note:
            continue
        if processor:
            took = max(0.1, note["processor_s"] - LOADING_PROCESSOR_S)
            result = replace(result, train_seconds=took)
        runs.append((note.get("name", folder.name[-12:]), spec, result))
    rows: dict[str, Told] = {}
    past: list[PastRun] = []
    for place, (name, spec, result) in enumerate(runs):
        if processor:
            past = [past_run(*run[1:]) for n, run in enumerate(runs) if n != place]
        record = Path(spec.base.path) / "afina.json"
        base = decode(BaseModel, json.loads(record.read_text())) if record.exists() else None
        found = foresee(base, spec, rate_of(base, spec, past))
        past.append(past_run(spec, result))
        rows[name] = {
            "tokens": (found.trained_tokens, result.trained_tokens),
            "seconds": (found.seconds, result.train_seconds),
            "memory": (found.memory_bytes, result.peak_rss_bytes),
        }
    print_table(rows)


def past_run(spec: RunSpec, result: RunResult) -> PastRun:
    load = load_of(spec, packed_run(spec))
    return PastRun(
        workload(spec),
        result.trained_tokens,
        result.steps,
        result.train_seconds,
        around_s=None,
        rows=load.rows,
        learned=load.learned,
        longest=load.longest,
        computed=load.computed,
        way=load.way,
        epochs=load.epochs,
    )


def ended(folder: Path) -> float:
    """When a run's result was written; runs without one come first and are passed over."""
    result = RunPaths(folder).result
    return result.stat().st_mtime if result.exists() else 0.0


def workload(spec: RunSpec) -> Workload:
    return Workload(spec.base.sha256, spec.tune.kind, spec.tune.base_bits, spec.method)


def rate_of(base: BaseModel | None, spec: RunSpec, past: list[PastRun]) -> TrainingRate | None:
    """From the runs that ended before, else what the base's probe measured."""
    costs = costs_of(base) if base is not None else Costs()
    way = Way.of_run(spec)
    found = learned_rate(past, workload(spec), load_of(spec).step_tokens, costs, way)
    probed = base.capabilities.get("train_tokens_per_s") if base is not None else None
    if found is None and probed:
        return TrainingRate(float(probed), costs=costs)
    return found


def print_table(rows: dict[str, Told]) -> None:
    errors: dict[str, list[float]] = {"tokens": [], "seconds": [], "memory": []}
    print(f"{'job':24}{'tokens':>17}{'seconds':>17}{'memory, MB':>17}")
    for name, told in rows.items():
        cells = []
        for what, (before, after) in told.items():
            if before is None or not after:
                cells.append("–")
                continue
            errors[what].append(abs(before - after) / after)
            scale = 1e6 if what == "memory" else 1
            cells.append(f"{before / scale:,.0f} / {after / scale:,.0f}")
        print(f"{name:24}" + "".join(f"{cell:>17}" for cell in cells))
    for what, values in errors.items():
        if values:
            print(
                f"error of {what}: {statistics.median(values):.1%} (median of {len(values)}), "
                f"{max(values):.0%} at most"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("--job", type=int, help="from 0; by default the next")
    parser.add_argument("--methods", action="store_true", help="the small jobs, one a way")
    parser.add_argument("--alone", action="store_true", help="the trainer without the platform")
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--processor", action="store_true")
    given = parser.parse_args()
    if given.what == "run":
        run_one(given.data, given.job, METHODS if given.methods else SORTS, alone=given.alone)
    elif given.learn or given.processor:
        show_learned(given.data, processor=given.processor)
    else:
        show(given.data)


if __name__ == "__main__":
    main()
