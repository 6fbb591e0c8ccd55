"""Users of an organization, their places in projects, and service accounts.

No mail leaves the machine: whoever is invited is a user at once, and comes in with a key that an
admin hands over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from afina.domain import ids
from afina.domain.accounts import Caller, Member, ServiceAccount, User
from afina.errors import Conflict, InvalidRequest, NotFound
from afina.service.audit import note, require_admin
from afina.service.platform import Platform
from afina.service.projects import check_name, live_project, project_of
from afina.store import accounts, people
from afina.store.database import Tx

ORGANIZATION_ROLES: Final = ("owner", "reader")
PROJECT_ROLES: Final = ("owner", "member")
ACCOUNT_ROLES: Final = ("owner", "member", "none")
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")


@dataclass(frozen=True)
class Person:
    """A user with the projects that it has a place in: (id, role)."""

    user: User
    places: tuple[tuple[str, str], ...]


def add_user(
    platform: Platform,
    caller: Caller,
    email: str,
    role: str,
    projects: Sequence[tuple[str, str]] = (),
) -> Person:
    """Adds a user to the organization and to `projects`, (id, role) each. Raises Conflict where
    the address is known already."""
    require_admin(caller)
    _check_role(role, ORGANIZATION_ROLES)
    if not _EMAIL.fullmatch(email):
        raise InvalidRequest("This is no e-mail address.", param="email", code="invalid_value")
    with platform.database.write() as tx:
        if people.user_of_email(tx, email.lower(), caller.organization_id) is not None:
            raise Conflict("There is a user with this e-mail address already.", param="email")
        user = _new_user(platform, tx, caller, email, role)
        for project_id, place in projects:
            live_project(tx, caller, project_id)
            _check_role(place, PROJECT_ROLES, "projects")
            member = Member(project_id, user, place, platform.now())
            people.put_member(tx, member, platform.clock.now())
        return _person(tx, user)


def list_people(platform: Platform, caller: Caller) -> list[Person]:
    """The organization's users, oldest first."""
    require_admin(caller)
    with platform.database.read() as tx:
        return [_person(tx, user) for user in people.list_users(tx, caller.organization_id)]


def get_person(platform: Platform, caller: Caller, user_id: str) -> Person:
    """A user. Raises NotFound."""
    require_admin(caller)
    with platform.database.read() as tx:
        return _person(tx, _user(tx, caller, user_id))


def change_role(platform: Platform, caller: Caller, user_id: str, role: str) -> Person:
    """Makes the user an owner or a reader of the organization."""
    require_admin(caller)
    _check_role(role, ORGANIZATION_ROLES)
    with platform.database.write() as tx:
        user = replace(_user(tx, caller, user_id), role=role)
        people.update_user(tx, user)
        note(platform, tx, caller, "user.updated", user.id, role=role)
        return _person(tx, user)


def remove_user(platform: Platform, caller: Caller, user_id: str) -> None:
    """Takes the user out of the organization; the user's keys open nothing any more."""
    require_admin(caller)
    with platform.database.write() as tx:
        user = _user(tx, caller, user_id)
        people.delete_user(tx, user.id)
        ended = accounts.revoke_keys_of(tx, user.id, platform.now())
        note(platform, tx, caller, "user.deleted", user.id, keys_revoked=ended)


def list_members(platform: Platform, caller: Caller, project_id: str) -> list[Member]:
    """The project's users, oldest first."""
    require_admin(caller)
    with platform.database.read() as tx:
        return people.list_members(tx, project_of(tx, caller, project_id).id)


def get_member(platform: Platform, caller: Caller, project_id: str, user_id: str) -> Member:
    """A user's place in a project. Raises NotFound."""
    found = [m for m in list_members(platform, caller, project_id) if m.user.id == user_id]
    if not found:
        raise _no_user(user_id)
    return found[0]


def put_member(
    platform: Platform,
    caller: Caller,
    project_id: str,
    role: str,
    *,
    user_id: str | None = None,
    email: str | None = None,
) -> Member:
    """Gives a user of the organization, named by id or e-mail, a role in the project; a second
    call changes the role. Raises NotFound."""
    require_admin(caller)
    _check_role(role, PROJECT_ROLES)
    if (user_id is None) == (email is None):
        raise InvalidRequest("Give either user_id or email.", param="user_id")
    with platform.database.write() as tx:
        project = live_project(tx, caller, project_id)
        if email is not None:
            found = people.user_of_email(tx, email.lower(), caller.organization_id)
            if found is None:
                raise NotFound(
                    "No user of this organization has this e-mail address.",
                    param="email",
                    remedy="Invite the user first (POST /v1/organization/invites).",
                )
        else:
            found = _user(tx, caller, str(user_id))
        member = Member(project.id, found, role, platform.now())
        people.put_member(tx, member, platform.clock.now())
        note(platform, tx, caller, "role.assignment.created", found.id, project_id=project.id)
    return get_member(platform, caller, project_id, found.id)


def remove_member(platform: Platform, caller: Caller, project_id: str, user_id: str) -> None:
    """Takes the user out of the project; the user's keys of it open nothing any more. Raises
    NotFound."""
    member = get_member(platform, caller, project_id, user_id)
    with platform.database.write() as tx:
        people.delete_member(tx, member.project_id, user_id)
        ended = accounts.revoke_keys_of(tx, user_id, platform.now(), member.project_id)
        note(
            platform, tx, caller, "role.assignment.deleted", user_id, project_id=project_id,
            keys_revoked=ended,
        )  # fmt: skip


def create_service_account(
    platform: Platform, caller: Caller, project_id: str, name: str, role: str = "member"
) -> ServiceAccount:
    """A program's account in the project; its keys come from `keys.create_key_for`."""
    require_admin(caller)
    check_name(name)
    _check_role(role, ACCOUNT_ROLES)
    with platform.database.write() as tx:
        project = live_project(tx, caller, project_id)
        account = ServiceAccount(
            platform.ids.new(ids.SERVICE_ACCOUNT),
            caller.organization_id,
            project.id,
            name,
            role,
            platform.now(),
        )
        people.insert_service_account(tx, account, platform.clock.now())
        note(platform, tx, caller, "service_account.created", account.id, project_id=project.id)
    return account


def list_service_accounts(
    platform: Platform, caller: Caller, project_id: str
) -> list[ServiceAccount]:
    """The project's service accounts, oldest first."""
    require_admin(caller)
    with platform.database.read() as tx:
        return people.list_service_accounts(tx, project_of(tx, caller, project_id).id)


def get_service_account(
    platform: Platform, caller: Caller, project_id: str, account_id: str
) -> ServiceAccount:
    """A service account of the project. Raises NotFound."""
    for account in list_service_accounts(platform, caller, project_id):
        if account.id == account_id:
            return account
    raise NotFound(f"No such service account: {account_id[:64]}", param="service_account_id")


def change_service_account(
    platform: Platform, caller: Caller, account: ServiceAccount, name: str | None, role: str | None
) -> ServiceAccount:
    """Gives the account another name or role; None leaves it."""
    require_admin(caller)
    changed = replace(account, name=name or account.name, role=role or account.role)
    check_name(changed.name)
    _check_role(changed.role, ACCOUNT_ROLES)
    with platform.database.write() as tx:
        people.update_service_account(tx, changed)
        where = account.project_id
        note(platform, tx, caller, "service_account.updated", account.id, project_id=where)
    return changed


def remove_service_account(platform: Platform, caller: Caller, account: ServiceAccount) -> None:
    """Ends the account and its keys."""
    require_admin(caller)
    with platform.database.write() as tx:
        people.delete_service_account(tx, account.id, platform.now())
        ended = accounts.revoke_keys_of(tx, account.id, platform.now())
        where = account.project_id
        note(
            platform,
            tx,
            caller,
            "service_account.deleted",
            account.id,
            project_id=where,
            keys_revoked=ended,
        )


def _new_user(platform: Platform, tx: Tx, caller: Caller, email: str, role: str) -> User:
    user = User(
        id=platform.ids.new(ids.USER),
        organization_id=caller.organization_id,
        name=email.partition("@")[0],
        email=email.lower(),
        role=role,
        added_at=platform.now(),
    )
    people.insert_user(tx, user, platform.clock.now())
    note(platform, tx, caller, "user.added", user.id, role=role)
    return user


def _person(tx: Tx, user: User) -> Person:
    return Person(user, tuple(people.places_of(tx, user.id).items()))


def _user(tx: Tx, caller: Caller, user_id: str) -> User:
    user = people.get_user(tx, user_id, caller.organization_id)
    if user is None:
        raise _no_user(user_id)
    return user


def _no_user(user_id: str) -> NotFound:
    return NotFound(f"No such user: {user_id[:64]}", param="user_id")


def _check_role(role: str, allowed: tuple[str, ...], param: str = "role") -> None:
    if role not in allowed:
        raise InvalidRequest(
            f"Invalid value for '{param}': supported values are {', '.join(allowed)}.",
            param=param,
            code="invalid_value",
        )
