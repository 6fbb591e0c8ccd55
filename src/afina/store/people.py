"""Rows of users, of their places in projects, and of service accounts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from afina.domain.accounts import Member, ServiceAccount, User
from afina.domain.codec import encode
from afina.store.account_tables import PROJECT_MEMBERS, SERVICE_ACCOUNTS, USERS
from afina.store.database import Tx
from afina.store.ordering import next_order


def insert_user(tx: Tx, user: User, now: float) -> None:
    """Adds a user to the organization."""
    tx.execute(insert(USERS).values({**encode(user), "order_key": next_order(tx, USERS, now)}))


def get_user(tx: Tx, user_id: str, organization_id: str) -> User | None:
    """The organization's user of that id."""
    where = (USERS.c.id == user_id, USERS.c.organization_id == organization_id)
    row = tx.execute(select(USERS).where(*where)).one_or_none()
    return None if row is None else _user(row)


def user_of_email(tx: Tx, email: str, organization_id: str) -> User | None:
    """The organization's user of that address."""
    where = (USERS.c.email == email, USERS.c.organization_id == organization_id)
    row = tx.execute(select(USERS).where(*where)).one_or_none()
    return None if row is None else _user(row)


def user_of_subject(tx: Tx, subject: str) -> User | None:
    """The user that came in as this subject of a sign-in provider."""
    row = tx.execute(select(USERS).where(USERS.c.subject == subject)).one_or_none()
    return None if row is None else _user(row)


def users_of_email(tx: Tx, email: str) -> list[tuple[User, str | None]]:
    """The users of that address, oldest first, each with the subject that it came in as."""
    query = select(USERS).where(USERS.c.email == email).order_by(USERS.c.order_key)
    return [(_user(row), row.subject) for row in tx.execute(query)]


def remember_subject(tx: Tx, user_id: str, subject: str) -> None:
    """Notes as whom of a sign-in provider the user comes in."""
    tx.execute(update(USERS).where(USERS.c.id == user_id).values(subject=subject))


def list_users(tx: Tx, organization_id: str) -> list[User]:
    """The organization's users, oldest first."""
    query = select(USERS).where(USERS.c.organization_id == organization_id)
    return [_user(row) for row in tx.execute(query.order_by(USERS.c.order_key))]


def update_user(tx: Tx, user: User) -> None:
    """Writes the user's role and name."""
    values = {"role": user.role, "name": user.name}
    tx.execute(update(USERS).where(USERS.c.id == user.id).values(values))


def delete_user(tx: Tx, user_id: str) -> None:
    """Takes the user out of the organization and of all its projects."""
    tx.execute(delete(PROJECT_MEMBERS).where(PROJECT_MEMBERS.c.user_id == user_id))
    tx.execute(delete(USERS).where(USERS.c.id == user_id))


def put_member(tx: Tx, member: Member, now: float) -> None:
    """Adds the user to the project, or writes the role anew."""
    where = _of(member.project_id, member.user.id)
    if tx.execute(update(PROJECT_MEMBERS).where(*where).values(role=member.role)).rowcount:
        return
    tx.execute(
        insert(PROJECT_MEMBERS).values(
            id=member.user.id,
            project_id=member.project_id,
            user_id=member.user.id,
            order_key=next_order(tx, PROJECT_MEMBERS, now),
            role=member.role,
            added_at=member.added_at,
        )
    )


def list_members(tx: Tx, project_id: str) -> list[Member]:
    """The project's users, oldest first."""
    query = (
        select(
            PROJECT_MEMBERS.c.role.label("place"), PROJECT_MEMBERS.c.added_at.label("since"), USERS
        )
        .join(USERS, USERS.c.id == PROJECT_MEMBERS.c.user_id)
        .where(PROJECT_MEMBERS.c.project_id == project_id)
        .order_by(PROJECT_MEMBERS.c.order_key)
    )
    return [Member(project_id, _user(row), row.place, row.since) for row in tx.execute(query)]


def places_of(tx: Tx, user_id: str) -> dict[str, str]:
    """The user's projects, and the role in each."""
    query = select(PROJECT_MEMBERS).where(PROJECT_MEMBERS.c.user_id == user_id)
    ordered = query.order_by(PROJECT_MEMBERS.c.order_key)
    return {row.project_id: row.role for row in tx.execute(ordered)}


def delete_member(tx: Tx, project_id: str, user_id: str) -> None:
    """Takes the user out of the project."""
    tx.execute(delete(PROJECT_MEMBERS).where(*_of(project_id, user_id)))


def insert_service_account(tx: Tx, account: ServiceAccount, now: float) -> None:
    """Adds a service account."""
    order = next_order(tx, SERVICE_ACCOUNTS, now)
    tx.execute(insert(SERVICE_ACCOUNTS).values({**encode(account), "order_key": order}))


def list_service_accounts(tx: Tx, project_id: str) -> list[ServiceAccount]:
    """The project's service accounts, oldest first."""
    query = select(SERVICE_ACCOUNTS).where(
        SERVICE_ACCOUNTS.c.project_id == project_id, SERVICE_ACCOUNTS.c.deleted_at.is_(None)
    )
    return [_account(row) for row in tx.execute(query.order_by(SERVICE_ACCOUNTS.c.order_key))]


def get_service_account(tx: Tx, account_id: str) -> ServiceAccount | None:
    """The service account of that id, unless it has ended."""
    where = (SERVICE_ACCOUNTS.c.id == account_id, SERVICE_ACCOUNTS.c.deleted_at.is_(None))
    row = tx.execute(select(SERVICE_ACCOUNTS).where(*where)).one_or_none()
    return None if row is None else _account(row)


def update_service_account(tx: Tx, account: ServiceAccount) -> None:
    """Writes the account's name and role."""
    where = SERVICE_ACCOUNTS.c.id == account.id
    values = {"name": account.name, "role": account.role}
    tx.execute(update(SERVICE_ACCOUNTS).where(where).values(values))


def delete_service_account(tx: Tx, account_id: str, now: int) -> None:
    """Ends the account; its row stays, because keys and ledger entries name it."""
    where = SERVICE_ACCOUNTS.c.id == account_id
    tx.execute(update(SERVICE_ACCOUNTS).where(where).values(deleted_at=now))


def _of(project_id: str, user_id: str) -> tuple[Any, Any]:
    return (PROJECT_MEMBERS.c.project_id == project_id, PROJECT_MEMBERS.c.user_id == user_id)


def _user(row: Row[Any]) -> User:
    return User(**{name: getattr(row, name) for name in User.__dataclass_fields__})


def _account(row: Row[Any]) -> ServiceAccount:
    names = ServiceAccount.__dataclass_fields__
    return ServiceAccount(**{name: getattr(row, name) for name in names})
