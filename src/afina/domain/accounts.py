"""Who owns what: an organization has projects, a project has keys; every object has a project.

One machine alone has one of each, made at the first start. A key's secret is never here: the
store keeps its hash, and its owner saw it once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Organization:
    """`slug` is the third part of tuned models' names."""

    id: str
    slug: str
    name: str
    created_at: int


@dataclass(frozen=True)
class Project:
    """What owns files, jobs, models and ledger entries."""

    id: str
    organization_id: str
    name: str
    created_at: int


@dataclass(frozen=True)
class ApiKey:
    """A key as its owner may see it later: the beginning and the last four characters."""

    id: str
    project_id: str
    organization_id: str
    name: str
    prefix: str
    last4: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    @property
    def redacted(self) -> str:
        """`sk-afina-…abcd`."""
        return f"{self.prefix}…{self.last4}"


@dataclass(frozen=True)
class Caller:
    """On whose behalf a verb runs; every query is narrowed to its project."""

    project_id: str
    key_id: str
    organization_id: str
