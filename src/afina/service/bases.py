"""Base models on this machine: what DATA/models holds, and which names mean them."""

from __future__ import annotations

from afina.domain.models import BaseModel
from afina.service.platform import Platform


def list_bases(platform: Platform, *, admitted_only: bool = True) -> list[BaseModel]:
    """The base models here, by id."""
    raise NotImplementedError


def get_base(platform: Platform, base_id: str) -> BaseModel | None:
    """The base of that id, admitted or not."""
    raise NotImplementedError


def resolve_base(platform: Platform, name: str) -> BaseModel | None:
    """The admitted base that `name` means, by id or by the alias table."""
    raise NotImplementedError
