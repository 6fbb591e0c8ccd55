"""The audit log: who changed what in an organization, append-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AuditEntry:
    """One change. `type` is a name of the hosted service's log, such as `api_key.created`, or one
    of afina's own; `data` never holds a secret or a user's text."""

    id: str
    time: int
    organization_id: str
    project_id: str | None
    key_id: str | None
    user_id: str | None
    type: str
    resource_id: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditQuery:
    """What is asked of the log; empty means all. Times in Unix seconds, ends included."""

    types: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
