"""Rows of organizations, projects and API keys; of a key's secret there is only the sha256."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, exists, insert, select, update

from afina.domain.accounts import ApiKey, Organization, Project
from afina.domain.codec import encode
from afina.store.database import Tx
from afina.store.ordering import next_order
from afina.store.tables import API_KEYS, ORGANIZATIONS, PROJECTS


def any_key(tx: Tx) -> bool:
    """Whether there is any key at all, revoked ones too."""
    return bool(tx.execute(select(exists().select_from(API_KEYS))).scalar())


def insert_organization(tx: Tx, organization: Organization) -> None:
    """Adds an organization."""
    tx.execute(insert(ORGANIZATIONS).values(encode(organization)))


def insert_project(tx: Tx, project: Project) -> None:
    """Adds a project."""
    tx.execute(insert(PROJECTS).values(encode(project)))


def insert_key(tx: Tx, key: ApiKey, secret_sha256: str, now: float) -> None:
    """Adds a key."""
    extra = {"secret_sha256": secret_sha256, "order_key": next_order(tx, API_KEYS, now)}
    tx.execute(insert(API_KEYS).values({**encode(key), **extra}))


def find_key(tx: Tx, secret_sha256: str) -> tuple[ApiKey, str] | None:
    """The key whose secret has that hash, and the hash as stored."""
    query = select(API_KEYS).where(API_KEYS.c.secret_sha256 == secret_sha256)
    row = tx.execute(query).one_or_none()
    return None if row is None else (_key(row), row.secret_sha256)


def list_keys(tx: Tx, project_id: str) -> list[ApiKey]:
    """The project's keys, newest first."""
    query = select(API_KEYS).where(API_KEYS.c.project_id == project_id)
    return [_key(row) for row in tx.execute(query.order_by(API_KEYS.c.order_key.desc()))]


def revoke_key(tx: Tx, key_id: str, project_id: str, now: int) -> ApiKey | None:
    """Ends the key; None if the project has none of that id. The first time of ending stays."""
    where = (API_KEYS.c.id == key_id, API_KEYS.c.project_id == project_id)
    tx.execute(
        update(API_KEYS).where(*where, API_KEYS.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    row = tx.execute(select(API_KEYS).where(*where)).one_or_none()
    return None if row is None else _key(row)


def touch_key(tx: Tx, key_id: str, now: int) -> None:
    """Notes that the key was used."""
    tx.execute(update(API_KEYS).where(API_KEYS.c.id == key_id).values(last_used_at=now))


def get_project(tx: Tx, project_id: str) -> Project | None:
    """The project of that id."""
    row = tx.execute(select(PROJECTS).where(PROJECTS.c.id == project_id)).one_or_none()
    if row is None:
        return None
    return Project(**{name: getattr(row, name) for name in Project.__dataclass_fields__})


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(**{name: getattr(row, name) for name in ApiKey.__dataclass_fields__})
