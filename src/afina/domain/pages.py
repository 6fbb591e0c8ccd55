"""A page of a list that is read with a cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items in order, and whether more follow the last one."""

    data: tuple[T, ...]
    has_more: bool
