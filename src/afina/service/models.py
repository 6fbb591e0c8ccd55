"""Models by their public names: bases, tuned models and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from afina.domain.accounts import Caller
from afina.domain.models import BaseModel, TunedModel
from afina.service.platform import Platform


@dataclass(frozen=True)
class ModelEntry:
    """A model as the list shows it; exactly one of `base` and `tuned` is set."""

    id: str
    created_at: int
    owned_by: str
    base: BaseModel | None = None
    tuned: TunedModel | None = None


@dataclass(frozen=True)
class ResolvedModel:
    """What answers for a name: `name` is what really runs (an alias is resolved)."""

    name: str
    base: BaseModel
    adapter: str | None = None
    """The sha256 of the manifest blob; None for a base model."""
    tuned: TunedModel | None = None


def list_models(platform: Platform, caller: Caller) -> list[ModelEntry]:
    """Admitted bases, then the project's tuned models and checkpoints, newest first."""
    raise NotImplementedError


def get_model(platform: Platform, caller: Caller, name: str) -> ModelEntry:
    """Raises ModelNotFound."""
    raise NotImplementedError


def resolve_model(platform: Platform, caller: Caller, name: str) -> ResolvedModel:
    """What answers a request for `name`. Raises ModelNotFound."""
    raise NotImplementedError


def delete_model(platform: Platform, caller: Caller, name: str) -> None:
    """Deletes a tuned model and its bytes; its job stays. Raises ModelNotFound, and Forbidden for
    a base."""
    raise NotImplementedError
