"""Who owns what: an organization has projects, a project has keys; every object has a project.

One machine alone has one of each, made at the first start. A key's secret is never here: the
store keeps its hash, and its owner saw it once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class KeyKind(enum.StrEnum):
    """What a key opens. `root`, the first key of a machine, opens its project and the organization;
    `admin` the organization alone; `project` its project alone."""

    ROOT = "root"
    ADMIN = "admin"
    PROJECT = "project"


class OwnerKind(enum.StrEnum):
    """Whose key it is; a key without an owner belongs to its project."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"


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
    archived_at: int | None = None


@dataclass(frozen=True)
class User:
    """A person of the organization. `role` is owner or reader."""

    id: str
    organization_id: str
    name: str
    email: str
    role: str
    added_at: int


@dataclass(frozen=True)
class Member:
    """A user in a project. `role` is owner or member."""

    project_id: str
    user: User
    role: str
    added_at: int


@dataclass(frozen=True)
class ServiceAccount:
    """A program in a project. `role` is owner, member or none; with none, a key of the account does
    what its scopes name and nothing else."""

    id: str
    organization_id: str
    project_id: str
    name: str
    role: str
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
    kind: KeyKind = KeyKind.PROJECT
    scopes: tuple[str, ...] | None = None
    """None: everything that its kind opens."""
    owner_kind: OwnerKind | None = None
    owner_id: str | None = None

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
    kind: KeyKind = KeyKind.PROJECT
    scopes: tuple[str, ...] | None = None
    user_id: str | None = None
    account_id: str | None = None
    """The service account whose key it is."""

    @property
    def owner(self) -> tuple[OwnerKind, str] | None:
        """Who owns the key, and with it the keys that it makes; None: the project."""
        if self.user_id is not None:
            return OwnerKind.USER, self.user_id
        return None if self.account_id is None else (OwnerKind.SERVICE_ACCOUNT, self.account_id)

    @property
    def manages_organization(self) -> bool:
        """Whether projects, keys, budgets and the audit log are its business."""
        return self.kind is not KeyKind.PROJECT
