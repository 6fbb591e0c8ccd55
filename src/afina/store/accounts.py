"""Rows of organizations, projects and API keys; of a key's secret there is only the sha256."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, exists, insert, select, update

from afina.domain.accounts import ApiKey, KeyKind, Organization, OwnerKind, Project
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


def get_project(tx: Tx, project_id: str) -> Project | None:
    """The project of that id."""
    row = tx.execute(select(PROJECTS).where(PROJECTS.c.id == project_id)).one_or_none()
    return None if row is None else _project(row)


def list_projects(tx: Tx, organization_id: str) -> list[Project]:
    """The organization's projects, oldest first, archived ones too."""
    query = select(PROJECTS).where(PROJECTS.c.organization_id == organization_id)
    return [
        _project(row) for row in tx.execute(query.order_by(PROJECTS.c.created_at, PROJECTS.c.id))
    ]


def update_project(tx: Tx, project: Project) -> None:
    """Writes the project's name and the time of its archiving."""
    values = {"name": project.name, "archived_at": project.archived_at}
    tx.execute(update(PROJECTS).where(PROJECTS.c.id == project.id).values(values))


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
    """The project's keys, newest first; those that manage the organization are not among them."""
    where = (API_KEYS.c.project_id == project_id, API_KEYS.c.kind != KeyKind.ADMIN.value)
    return _keys(tx, *where)


def list_admin_keys(tx: Tx, organization_id: str) -> list[ApiKey]:
    """The organization's admin keys, newest first, revoked ones too."""
    return _keys(
        tx,
        API_KEYS.c.organization_id == organization_id,
        API_KEYS.c.kind == KeyKind.ADMIN.value,
    )


def get_key(tx: Tx, key_id: str, organization_id: str) -> ApiKey | None:
    """The organization's key of that id."""
    where = (API_KEYS.c.id == key_id, API_KEYS.c.organization_id == organization_id)
    row = tx.execute(select(API_KEYS).where(*where)).one_or_none()
    return None if row is None else _key(row)


def update_key(tx: Tx, key: ApiKey) -> None:
    """Writes the key's scopes and the end of its life."""
    scopes = None if key.scopes is None else list(key.scopes)
    values = {"scopes": scopes, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    tx.execute(update(API_KEYS).where(API_KEYS.c.id == key.id).values(values))


def revoke_key(tx: Tx, key_id: str, project_id: str, now: int) -> ApiKey | None:
    """Ends the key; None if the project has none of that id. The first time of ending stays."""
    where = (
        API_KEYS.c.id == key_id,
        API_KEYS.c.project_id == project_id,
        API_KEYS.c.kind != KeyKind.ADMIN.value,
    )
    tx.execute(
        update(API_KEYS).where(*where, API_KEYS.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    row = tx.execute(select(API_KEYS).where(*where)).one_or_none()
    return None if row is None else _key(row)


def revoke_keys_of(tx: Tx, owner_id: str, now: int, project_id: str | None = None) -> int:
    """Ends all keys of a user or a service account, in one project or in all; says how many
    lived."""
    where = [API_KEYS.c.owner_id == owner_id, API_KEYS.c.revoked_at.is_(None)]
    if project_id is not None:
        where.append(API_KEYS.c.project_id == project_id)
    return int(tx.execute(update(API_KEYS).where(*where).values(revoked_at=now)).rowcount)


def touch_key(tx: Tx, key_id: str, now: int) -> None:
    """Notes that the key was used."""
    tx.execute(update(API_KEYS).where(API_KEYS.c.id == key_id).values(last_used_at=now))


def _keys(tx: Tx, *where: ColumnElement[bool]) -> list[ApiKey]:
    query = select(API_KEYS).where(*where).order_by(API_KEYS.c.order_key.desc())
    return [_key(row) for row in tx.execute(query)]


def _project(row: Row[Any]) -> Project:
    return Project(**{name: getattr(row, name) for name in Project.__dataclass_fields__})


def _key(row: Row[Any]) -> ApiKey:
    values = {name: getattr(row, name) for name in ApiKey.__dataclass_fields__}
    values["kind"] = KeyKind(row.kind)
    values["scopes"] = None if row.scopes is None else tuple(row.scopes)
    values["owner_kind"] = None if row.owner_kind is None else OwnerKind(row.owner_kind)
    return ApiKey(**values)
