"""The extension object `afina` of POST /v1/fine_tuning/jobs.

With the official client: `client.fine_tuning.jobs.create(..., extra_body={"afina": {...}})`.
A field that is misspelt, or that the kind of tuning does not have, is a 400 that names it. What a
field means stands in docs/methods.md and `afina.domain.methods`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from afina.domain.methods import (
    MAX_RANK,
    BaseBits,
    EarlyStopping,
    Extension,
    GatePolicy,
    GateSuite,
    GateWish,
    Tuning,
    TuningKind,
)
from afina.service.refusals import Wire

Module = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class TuningShape(Wire):
    """What is tuned. Fields that the kind does not have are refused."""

    kind: TuningKind = "lora"
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] | None = None
    alpha: Annotated[float, Field(gt=0, le=65536)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    target_modules: Annotated[list[Module], Field(min_length=1, max_length=64)] | None = None
    rank_stabilised: bool | None = None
    base_bits: BaseBits | None = None
    layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    norm_and_head: bool | None = None

    def value(self) -> Tuning:
        given = self.model_dump(exclude={"target_modules"})
        modules = self.target_modules
        chosen = None if modules is None else tuple(sorted(set(modules)))
        return Tuning(**given, target_modules=chosen)


class EarlyStoppingShape(Wire):
    """When a run ends before its last epoch."""

    patience: Annotated[int, Field(ge=1, le=50)] = 1
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0


class GateShape(Wire):
    """What the release gate does with the model."""

    policy: GatePolicy = "report"
    suite: GateSuite = "default"


class JobExtension(Wire):
    """What a job may say beyond OpenAI's API."""

    tuning: TuningShape | None = None
    early_stopping: EarlyStoppingShape | None = None
    best_checkpoint: bool = False
    gate: GateShape | None = None

    @property
    def kind_given(self) -> bool:
        """Whether the kind of tuning was asked for."""
        return self.tuning is not None and "kind" in self.tuning.model_fields_set

    def value(self) -> Extension:
        """The same as the service takes it."""
        stopping = self.early_stopping
        gate = self.gate or GateShape()
        return Extension(
            tuning=Tuning() if self.tuning is None else self.tuning.value(),
            early_stopping=None
            if stopping is None
            else EarlyStopping(stopping.patience, stopping.min_delta),
            best_checkpoint=self.best_checkpoint,
            gate=GateWish(gate.policy, gate.suite),
        )
