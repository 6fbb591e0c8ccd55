"""The record of finished runs that estimates learn from: a line a run in `rates.jsonl`.

It holds numbers and names of methods, nothing of anybody's rows, and stays when jobs are deleted. A
line that cannot be read is passed over: the worst that a damaged record does is a rougher estimate.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from afina.domain.codec import decode, encode
from afina.domain.foresight import Network
from afina.domain.models import BaseModel
from afina.domain.rates import Costs, PastRun, TrainingRate, Workload, learned_rate
from afina.domain.runs import Precision, RunResult, RunSpec
from afina.domain.ways import PLAIN, Way
from afina.service.packing_ahead import packed_run
from afina.settings import Settings

_READ_BYTES: Final = 1 << 18
"""The newest lines: far more than are asked."""


def rate_for(
    settings: Settings,
    base: BaseModel,
    *,
    way: Way = PLAIN,
    step_tokens: float | None = None,
) -> TrainingRate | None:
    """From jobs that finished on this machine, those of the same way first; else what the base's
    probe measured when it was pulled. Runs of another way are weighed (`afina.domain.rates`)."""
    costs = costs_of(base)
    method = "dpo" if way.pairs else "supervised"
    workload = Workload(base.sha256, way.kind, way.base_bits, method, machine_name())
    found = learned_rate(_past_runs(settings.rates), workload, step_tokens, costs, way)
    probed = base.capabilities.get("train_tokens_per_s")
    if found is not None or not probed:
        return found
    busy = bool(base.capabilities.get("train_rate_busy"))
    return TrainingRate(float(probed), busy=busy, costs=costs)


def network_of(base: BaseModel, precision: Precision | None = None) -> Network | None:
    """The numbers of a base's network, in its own precision or another; None where its folder does
    not say enough."""
    try:
        config = json.loads((Path(base.path) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    precision = precision or ("fp32" if base.capabilities.get("precision") == "fp32" else "bf16")
    return Network.of(config, base.parameters, 4 if precision == "fp32" else 2)


def costs_of(base: BaseModel) -> Costs:
    """What steps, long rows and learned tokens of a base cost; the starter's where its folder does
    not say enough."""
    network = network_of(base)
    return Costs() if network is None else Costs.of(network)


def note_run(settings: Settings, spec: RunSpec, result: RunResult, around_s: float | None) -> None:
    """Remembers a run that succeeded. One line, appended at once: readers never see half of it."""
    packed = packed_run(spec)
    share = result.trained_tokens / max(1, spec.training.tokens)
    run = PastRun(
        workload=Workload(
            spec.base.sha256, spec.tune.kind, spec.tune.base_bits, spec.method, machine_name()
        ),
        tokens=result.trained_tokens,
        steps=result.steps,
        seconds=round(result.train_seconds, 3),
        around_s=None if around_s is None else round(around_s, 3),
        rows=round(spec.training.rows * share),
        learned=result.learned_tokens,
        longest=spec.training.longest_row,
        computed=None if packed is None else round(result.trained_tokens * packed.share),
        way=Way.of_run(spec),
        epochs=spec.epochs,
    )
    line = json.dumps(encode(run)).encode() + b"\n"
    settings.rates.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.rates, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _past_runs(path: Path) -> list[PastRun]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(decode(PastRun, json.loads(line)))
        except ValueError:
            continue
    return found


@lru_cache(maxsize=1)
def machine_name() -> str:
    """The processor and how many of its cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "cpu")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
