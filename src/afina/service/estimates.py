"""What a job would take, for a file of the project and a base model, before it is created."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from afina.data.check import CheckLimits, CheckReport, check_file
from afina.data.estimate import Estimate, estimate, with_memory
from afina.data.kinds import RowKind
from afina.domain.accounts import Caller
from afina.domain.auto import resolve
from afina.domain.jobs import Hyperparameters
from afina.domain.models import BaseModel
from afina.errors import InvalidRequest
from afina.service import bases
from afina.service.files import get_file
from afina.service.models import get_model
from afina.service.platform import Platform
from afina.service.pricing import prices_of
from afina.service.rates import rate_for
from afina.service.renderers import renderer_of


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


def estimate_job(
    platform: Platform,
    caller: Caller,
    model: str,
    training_file: str,
    hyperparameters: Hyperparameters,
) -> JobEstimate:
    """For a base or the base of a tuned model. Raises InvalidRequest, NotFound, ModelNotFound."""
    entry = get_model(platform, caller, model)
    base = entry.base
    if entry.tuned is not None:
        base = bases.get_base(platform, entry.tuned.base_id)
    if base is None:
        raise InvalidRequest(f"The base model of {model} is not here.", param="model")
    file = get_file(platform, caller, training_file)
    renderer = renderer_of(base)
    longest = min(renderer.context_tokens, platform.settings.training.max_row_tokens)
    path = platform.blobs.path(file.sha256)
    report = _checked(path, file.sha256, longest, _Base(base))
    resolved = resolve(hyperparameters, report.training_rows)
    mean = report.tokens / max(1, report.training_rows)
    found = estimate(
        path,
        renderer,
        report=report,
        hyperparameters=hyperparameters,
        prices=prices_of(platform.settings, base.id),
        rate=rate_for(platform.settings, base, step_tokens=mean * int(resolved.batch_size)),
    )
    found = with_memory(found, base)
    return JobEstimate(base, found, resolved, report.errors, report.warnings, report.kind)


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
