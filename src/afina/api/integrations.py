"""The field `integrations` of POST /v1/fine_tuning/jobs: `wandb` as the wire has it, `mlflow` ours.

    {"type": "wandb", "wandb": {"project", "name"?, "entity"?, "tags"?}}
    {"type": "mlflow", "mlflow": {"experiment", "name"?, "tags"?}}

Keys and addresses are settings of the server; a request that brings some is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from afina.domain.integrations import EXPERIMENT, PROJECT, Mlflow, Wandb
from afina.service.refusals import Wire

_Slug = Annotated[str, Field(min_length=1, max_length=128, pattern=PROJECT)]
_Text = Annotated[str, Field(min_length=1, max_length=250, pattern=EXPERIMENT)]
_Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
_TagName = Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[A-Za-z0-9_./ -]+$")]


class WandbShape(Wire):
    """Where in Weights & Biases."""

    project: _Slug
    name: _Tag | None = None
    entity: _Slug | None = None
    tags: Annotated[list[_Tag], Field(max_length=50)] | None = None


class MlflowShape(Wire):
    """Where on the MLflow server."""

    experiment: _Text
    name: _Text | None = None
    tags: Annotated[dict[_TagName, _Text], Field(max_length=20)] | None = None


class WandbIntegration(Wire):
    """A run in Weights & Biases."""

    type: Literal["wandb"]
    wandb: WandbShape

    def value(self) -> Wandb:
        """The same as the service takes it."""
        said = self.wandb
        return Wandb(said.project, said.name, said.entity, tuple(said.tags or ()))


class MlflowIntegration(Wire):
    """A run on an MLflow server."""

    type: Literal["mlflow"]
    mlflow: MlflowShape

    def value(self) -> Mlflow:
        """The same as the service takes it."""
        said = self.mlflow
        return Mlflow(said.experiment, said.name, dict(said.tags or {}))


_Integration = Annotated[WandbIntegration | MlflowIntegration, Field(discriminator="type")]
Integrations = Annotated[list[_Integration], Field(max_length=5)]
