"""What a job would take, for a file and a base model, before it is created.

`plan_file` is asked by the command, the api and the pages alike; `memory_of` by whoever compares a
run with what was said of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import psutil

from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.estimate import Estimate, estimate, units_of
from afina.data.kinds import KINDS_OF_METHOD, RowKind
from afina.domain.accounts import Caller
from afina.domain.auto import resolve
from afina.domain.bins import bin_capacities
from afina.domain.foresight import Packed, Rows, training_memory
from afina.domain.jobs import Hyperparameters
from afina.domain.methods import Tuning
from afina.domain.models import BaseModel
from afina.domain.runs import Precision
from afina.domain.ways import Way
from afina.errors import InvalidRequest
from afina.model.kernels.machine import can_have_kernels
from afina.service import bases
from afina.service.job_request import JobRequest
from afina.service.jobs import find_rows
from afina.service.models import get_model
from afina.service.packing_ahead import packed_file
from afina.service.platform import Platform
from afina.service.pricing import prices_of
from afina.service.rates import network_of, rate_for
from afina.service.renderers import renderer_of
from afina.service.tuning import find_parent, settle
from afina.service.ways import kernels_take, precision_for, tune_for, way_of
from afina.settings import Settings
from afina.text.renderer import Renderer


@dataclass(frozen=True)
class JobEstimate:
    """The estimate, what `auto` becomes, and what the check found."""

    base: BaseModel
    estimate: Estimate
    resolved: Hyperparameters
    errors: int
    warnings: int
    kind: RowKind
    """What the rows of the file are."""
    tuning: Tuning
    """Settled."""
    method: str


@dataclass(frozen=True)
class Wanted:
    """What of a job its estimate depends on. `tuning` is settled."""

    hyperparameters: Hyperparameters
    tuning: Tuning
    method: str = "supervised"


def estimate_job(platform: Platform, caller: Caller, request: JobRequest) -> JobEstimate:
    """For a job as it would be created, from a base or from a tuned model to go on from. Raises
    what creating it would raise of model, file and tuning."""
    entry = get_model(platform, caller, request.model)
    base, parent = entry.base, None
    if entry.tuned is not None:
        base = bases.get_base(platform, entry.tuned.base_id)
        parent = find_parent(platform, caller, entry.tuned.name)
    if base is None:
        raise InvalidRequest(f"The base model of {request.model} is not here.", param="model")
    settled = settle(
        platform.settings,
        base,
        request.extension,
        parent,
        has_validation=request.validation_file is not None,
        kind_given=request.kind_given,
    )
    with platform.database.read() as tx:
        file = find_rows(platform, tx, caller, request.training_file, "training_file")
        if request.validation_file is not None:
            find_rows(platform, tx, caller, request.validation_file, "validation_file")
    renderer = renderer_of(base)
    longest = min(renderer.context_tokens, platform.settings.training.max_row_tokens)
    path = platform.blobs.path(file.sha256)
    report = _checked(path, file.sha256, longest, _Base(base))
    wanted = Wanted(request.hyperparameters, settled.tuning, request.method)
    return plan_file(platform.settings, base, path, renderer, report, wanted)


def plan_file(
    settings: Settings,
    base: BaseModel,
    path: Path,
    renderer: Renderer,
    report: CheckReport,
    wanted: Wanted,
) -> JobEstimate:
    """For a file that was checked with the base's renderer. Raises InvalidRequest."""
    units = units_of(report)
    resolved = resolve(wanted.hyperparameters, units)
    batch = int(resolved.batch_size)
    method = "dpo" if report.kind is RowKind.PREFERENCE else "supervised"
    way = way_of(wanted.tuning, base, method)
    packed = packed_file(path, renderer, report, way, batch) if units else None
    precision = precision_for(
        settings.training.model_copy(update={"precision": settings.precision}),
        base,
        by_kernels=kernels_take(tune_for(wanted.tuning), wanted.tuning),
    )
    longest = 2 * report.longest_row if way.pairs else report.longest_row
    rows = Rows(units, report.tokens, report.learned_tokens, longest)
    found = estimate(
        path,
        renderer,
        report=report,
        hyperparameters=wanted.hyperparameters,
        prices=prices_of(settings, base.id),
        rate=rate_for(settings, base, way=way, step_tokens=report.tokens / max(1, units) * batch),
        way=way,
        packed=packed,
        memory_bytes=memory_of(base, precision, way, rows, (batch, packed)),
    )
    return JobEstimate(
        base, found, resolved, report.errors, report.warnings, report.kind, wanted.tuning, method
    )


def check_kind(kind: RowKind, method: str) -> None:
    """Raises InvalidRequest where rows of this kind are for another method."""
    if kind in KINDS_OF_METHOD.get(method, ()):
        return
    other = next((name for name, kinds in KINDS_OF_METHOD.items() if kind in kinds), None)
    raise InvalidRequest(
        f"The rows are of kind {kind.value.replace('_', ' ')}, which the method {method} does not "
        "train on.",
        param="method",
        remedy=None if other is None else f"Ask for the method {other}.",
    )


def memory_of(
    base: BaseModel, precision: Precision, way: Way, rows: Rows, steps: tuple[int, Packed | None]
) -> int | None:
    """The most that a trainer holds, with `steps` of so many rows; None where the base's folder
    does not say enough."""
    network = network_of(base, precision)
    if network is None:
        return None
    largest = max(bin_capacities(rows.longest))
    free = psutil.virtual_memory().available
    return training_memory(
        network, rows, way, steps, largest, kernels=can_have_kernels(), free=free
    )


class _Base:
    """A base that is equal to another of the same files, for the cache below."""

    def __init__(self, base: BaseModel) -> None:
        self.model = base
        self._key = (base.path, base.sha256)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Base) and other._key == self._key


@functools.lru_cache(maxsize=32)
def _checked(path: Path, sha256: str, longest: int, base: _Base) -> CheckReport:  # noqa: ARG001
    """Bytes under a hash never change, so a check holds for as long as anybody asks."""
    limits = CheckLimits(max_row_tokens=longest, max_findings=200)
    return check_file(path, limits, renderer_of(base.model))
