"""Integrations of a job: trackers elsewhere that are told its metrics while it goes on.

`wandb` is the hosted service's own type, `mlflow` is afina's. Both are told numbers, names and
settings; never a row of training data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from afina.domain.codec import decode
from afina.domain.sayings import Said

PROJECT: Final = r"^[^/\\#?%:\x00-\x1f]{1,128}$"
"""A project or entity of Weights & Biases."""
EXPERIMENT: Final = r"^[^\x00-\x1f]{1,250}$"
MOST_TAG: Final = 64
"""Characters of a tag, as Weights & Biases has it."""


@dataclass(frozen=True)
class Wandb:
    """A run in a project of Weights & Biases; its id is that of the job."""

    project: str
    name: str | None = None
    """The run's name; by default the id of the job."""
    entity: str | None = None
    tags: tuple[str, ...] = ()
    type: Literal["wandb"] = "wandb"

    def shown(self, job_id: str) -> dict[str, Any]:
        """As a job's answer shows it."""
        inner = {
            "project": self.project,
            "entity": self.entity,
            "name": self.name,
            "tags": list(self.tags),
            "run_id": job_id,
        }
        return {"type": self.type, self.type: inner}

    @property
    def place(self) -> str:
        """Where the run is, in words."""
        return f"the Weights & Biases project {self.project}"


@dataclass(frozen=True)
class Mlflow:
    """A run in an experiment of an MLflow server; the tag `afina.job_id` says whose it is."""

    experiment: str
    name: str | None = None
    """The run's name; by default the id of the job."""
    tags: Mapping[str, str] = field(default_factory=dict)
    type: Literal["mlflow"] = "mlflow"

    def shown(self, job_id: str) -> dict[str, Any]:  # noqa: ARG002
        """As a job's answer shows it."""
        inner = {"experiment": self.experiment, "name": self.name, "tags": dict(self.tags)}
        return {"type": self.type, self.type: inner}

    @property
    def place(self) -> str:
        """Where the run is, in words."""
        return f"the MLflow experiment {self.experiment}"


Integration = Wandb | Mlflow
RunState = Literal["running", "finished", "failed", "killed"]


@dataclass(frozen=True)
class MetricsRow:
    """What one step measured, with the moment in Unix seconds."""

    step: int
    time: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class RunNews:
    """What a tracker is told in one round."""

    job_id: str
    name: str
    started_at: int
    config: Mapping[str, Any]
    tags: tuple[str, ...]
    state: RunState
    ended_at: int | None = None
    metrics: tuple[MetricsRow, ...] = ()
    outcome: Mapping[str, str | int] = field(default_factory=dict)
    """What is known when the job is over: the tuned model, the tokens, the code of its error."""


@dataclass(frozen=True)
class Told:
    """Where a tracker keeps the run, and what its user should know of it."""

    run: str
    said: Said | None


def decode_all(data: Sequence[Any]) -> tuple[Integration, ...]:
    """Integrations as a row holds them."""
    kinds: dict[str, type[Wandb | Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow}
    return tuple(decode(kinds[one["type"]], one, "integrations") for one in data)


def default_tags(job_id: str, model: str) -> tuple[str, ...]:
    """The tags that the hosted service gives every run, so that what filters by them goes on."""
    tags = ("openai/finetune", f"openai/{job_id}", f"openai/{model}")
    return tuple(tag[:MOST_TAG] for tag in tags)
