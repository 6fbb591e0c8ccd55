"""API keys: 256 bits, stored as a hash, shown once.

The first key of an installation is made with its organization and project and written to
DATA/api-key, so that one machine alone needs no accounts.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from afina.domain import ids, scopes
from afina.domain.accounts import (
    ApiKey,
    Caller,
    KeyKind,
    Organization,
    OwnerKind,
    Project,
    User,
)
from afina.errors import (
    BadSettings,
    Conflict,
    InvalidRequest,
    NotFound,
    Unauthenticated,
)
from afina.service.audit import note, require_admin
from afina.service.callers import caller_by, holder_of
from afina.service.platform import Platform
from afina.service.projects import check_name, live_project, project_of
from afina.store import accounts
from afina.store.database import Tx
from afina.store.dialects import lock_name

SECRET: Final = re.compile(r"sk-afina-[A-Za-z0-9]{43}")
SIGN_IN: Final = "Dashboard sign-in"
"""The name of the keys that `sign_in_key` makes."""
_LONGEST_LIFE_S: Final = 10 * 366 * 86_400


@dataclass(frozen=True)
class NewKey:
    """What a key is to be. Without an owner it is the project's; without scopes it may do all."""

    name: str
    expires_after_s: int | None = None
    scopes: tuple[str, ...] | None = None
    owner_kind: OwnerKind | None = None
    owner_id: str | None = None


def ensure_first_key(platform: Platform) -> Path:
    """Makes organization, project and first key where there are none; the key is written to
    DATA/api-key (mode 0600), whose path is returned."""
    path = platform.settings.data / "api-key"
    with platform.database.write() as tx:
        lock_name(tx, "first key")
        if accounts.any_key(tx):
            return path
        secret = _kept_secret(path) or platform.ids.secret()
        _insert_first(platform, tx, secret)
        # Before the commit: a crash here leaves a file that the next start takes up again.
        _write_secret(path, secret)
    return path


def authenticate(platform: Platform, secret: str) -> Caller:
    """Whose key this is. Raises Unauthenticated."""
    digest = _hash(secret)
    with platform.database.read() as tx:
        found = accounts.find_key(tx, digest)
        holder = None if found is None else holder_of(tx, found[0])
    if found is None or holder is None or not hmac.compare_digest(found[1], digest):
        raise Unauthenticated(
            "Incorrect API key provided.", remedy="The first key is in DATA/api-key on the server."
        )
    return caller_by(platform, found[0], holder)


def caller_of_key(platform: Platform, key_id: str, organization_id: str) -> Caller:
    """Whose key this is, for who has shown its secret before. Raises Unauthenticated."""
    with platform.database.read() as tx:
        key = accounts.get_key(tx, key_id, organization_id)
        holder = None if key is None else holder_of(tx, key)
    if key is None or holder is None:
        raise Unauthenticated("This API key is gone.")
    return caller_by(platform, key, holder)


def sign_in_key(platform: Platform, user: User, project_id: str, expires_at: int) -> ApiKey:
    """The key that stands for a user who signed in without one: one for each project, which lives
    until `expires_at` at least. Nobody has its secret."""
    with platform.database.write() as tx:
        for known in accounts.list_keys(tx, project_id):
            if known.owner_id == user.id and known.name == SIGN_IN and known.revoked_at is None:
                kept = replace(known, expires_at=max(known.expires_at or 0, expires_at))
                accounts.update_key(tx, kept)
                return kept
        project = accounts.get_project(tx, project_id)
        if project is None:
            raise NotFound(f"No such project: {project_id[:64]}", param="project_id")
        new = NewKey(SIGN_IN, None, None, OwnerKind.USER, user.id)
        secret = platform.ids.secret()
        key = _new_key(platform, new, secret, project, KeyKind.PROJECT)
        key = replace(key, expires_at=expires_at)
        accounts.insert_key(tx, key, _hash(secret), platform.clock.now())
    return key


def create_key(
    platform: Platform,
    caller: Caller,
    name: str,
    expires_after_s: int | None = None,
    key_scopes: tuple[str, ...] | None = None,
) -> tuple[ApiKey, str]:
    """A new key of the caller's project, and its secret, which is never shown again. A key makes
    none that may do more than itself or, where it is the project's own, that lives longer. What
    the key of a user or a service account makes is theirs too, and goes with them."""
    owner_kind, owner_id = caller.owner or (None, None)
    new = NewKey(name, expires_after_s, key_scopes, owner_kind, owner_id)
    if owner_kind is None:
        _check_end(platform, caller, expires_after_s)
    if caller.scopes is not None and not set(new.scopes or scopes.KNOWN) <= set(caller.scopes):
        raise InvalidRequest(
            "A restricted key makes only keys with scopes of its own.",
            param="scopes",
            code="invalid_value",
            remedy=f"Its scopes are {', '.join(caller.scopes)}.",
        )
    return _create(platform, caller, new, caller.project_id, KeyKind.PROJECT)


def create_key_for(
    platform: Platform, caller: Caller, project_id: str, new: NewKey
) -> tuple[ApiKey, str]:
    """A key of another project of the organization. Raises NotFound, Forbidden."""
    require_admin(caller)
    with platform.database.read() as tx:
        live_project(tx, caller, project_id)
    return _create(platform, caller, new, project_id, KeyKind.PROJECT)


def create_admin_key(platform: Platform, caller: Caller, new: NewKey) -> tuple[ApiKey, str]:
    """A key that manages the organization and opens no project's files, jobs or models."""
    require_admin(caller)
    return _create(platform, caller, new, caller.project_id, KeyKind.ADMIN)


def list_admin_keys(platform: Platform, caller: Caller) -> list[ApiKey]:
    """The organization's admin keys that live, newest first."""
    require_admin(caller)
    with platform.database.read() as tx:
        found = accounts.list_admin_keys(tx, caller.organization_id)
    return [key for key in found if key.revoked_at is None]


def get_admin_key(platform: Platform, caller: Caller, key_id: str) -> ApiKey:
    """An admin key that lives. Raises NotFound."""
    for key in list_admin_keys(platform, caller):
        if key.id == key_id:
            return key
    raise _no_key(key_id)


def revoke_admin_key(platform: Platform, caller: Caller, key_id: str) -> ApiKey:
    """From now on the admin key opens nothing. Raises NotFound."""
    return _end_key(platform, caller, get_admin_key(platform, caller, key_id))


def list_keys_of(platform: Platform, caller: Caller, project_id: str) -> list[ApiKey]:
    """The keys of any project of the organization that live, newest first."""
    require_admin(caller)
    with platform.database.read() as tx:
        found = accounts.list_keys(tx, project_of(tx, caller, project_id).id)
    return [key for key in found if key.revoked_at is None]


def get_key_of(platform: Platform, caller: Caller, project_id: str, key_id: str) -> ApiKey:
    """A key of any project of the organization. Raises NotFound."""
    for key in list_keys_of(platform, caller, project_id):
        if key.id == key_id:
            return key
    raise _no_key(key_id)


def revoke_key_of(platform: Platform, caller: Caller, project_id: str, key_id: str) -> ApiKey:
    """From now on that project's key opens nothing. Raises NotFound, and InvalidRequest for the
    key that asks and for the first key, which would lock everybody out."""
    return _end_key(platform, caller, get_key_of(platform, caller, project_id, key_id))


def restrict_key(
    platform: Platform,
    caller: Caller,
    key: ApiKey,
    expires_after_s: int | None = None,
    key_scopes: tuple[str, ...] | None = None,
) -> ApiKey:
    """Gives the key another end or other scopes; None leaves what there is, no scopes at all mean
    everything."""
    require_admin(caller)
    changed = key
    if expires_after_s is not None:
        _check_life(expires_after_s)
        changed = replace(changed, expires_at=platform.now() + expires_after_s)
    if key_scopes is not None:
        _check_scopes(key_scopes)
        changed = replace(changed, scopes=key_scopes or None)
    if key.kind is KeyKind.ROOT and changed != key:
        raise InvalidRequest(
            "The first key is not restricted: it is the way back in.", param="api_key_id"
        )
    with platform.database.write() as tx:
        accounts.update_key(tx, changed)
        note(platform, tx, caller, "api_key.updated", key.id, project_id=key.project_id)
    return changed


def list_keys(platform: Platform, caller: Caller) -> list[ApiKey]:
    """The project's keys, newest first, revoked ones too."""
    with platform.database.read() as tx:
        return accounts.list_keys(tx, caller.project_id)


def revoke_key(platform: Platform, caller: Caller, key_id: str) -> ApiKey:
    """From now on the key opens nothing. Raises NotFound, and Conflict for the first key: it ends
    itself alone, and only where an admin key can go on."""
    with platform.database.write() as tx:
        _keep_the_first_key(platform, tx, caller, key_id)
        key = accounts.revoke_key(tx, key_id, caller.project_id, platform.now())
        if key is not None:
            note(platform, tx, caller, "api_key.deleted", key.id)
    if key is None:
        raise _no_key(key_id)
    return key


def _insert_first(platform: Platform, tx: Tx, secret: str) -> None:
    now, slug = platform.now(), platform.settings.organization
    organization = Organization(platform.ids.new(ids.ORGANIZATION), slug, slug, now)
    project = Project(platform.ids.new(ids.PROJECT), organization.id, "Default project", now)
    accounts.insert_organization(tx, organization)
    accounts.insert_project(tx, project)
    key = _new_key(platform, NewKey("First key"), secret, project, KeyKind.ROOT)
    accounts.insert_key(tx, key, _hash(secret), platform.clock.now())


def _create(
    platform: Platform, caller: Caller, new: NewKey, project_id: str, kind: KeyKind
) -> tuple[ApiKey, str]:
    check_name(new.name)
    if new.expires_after_s is not None:
        _check_life(new.expires_after_s)
    _check_scopes(new.scopes or ())
    admin = kind is KeyKind.ADMIN
    secret = platform.ids.admin_secret() if admin else platform.ids.secret()
    with platform.database.write() as tx:
        project = project_of(tx, caller, project_id)
        key = _new_key(platform, new, secret, project, kind)
        accounts.insert_key(tx, key, _hash(secret), platform.clock.now())
        note(platform, tx, caller, "api_key.created", key.id, project_id=project_id)
    return key, secret


def _new_key(
    platform: Platform, new: NewKey, secret: str, project: Project, kind: KeyKind
) -> ApiKey:
    now, life = platform.now(), new.expires_after_s
    shown = len(secret) - 43 + 3
    return ApiKey(
        id=platform.ids.new(ids.KEY),
        project_id=project.id,
        organization_id=project.organization_id,
        name=new.name,
        prefix=secret[:shown],
        last4=secret[-4:],
        created_at=now,
        expires_at=None if life is None else now + life,
        kind=kind,
        scopes=new.scopes or None,
        owner_kind=new.owner_kind,
        owner_id=new.owner_id,
    )


def _check_end(platform: Platform, caller: Caller, life_s: int | None) -> None:
    with platform.database.read() as tx:
        own = accounts.get_key(tx, caller.key_id, caller.organization_id)
    end = None if own is None else own.expires_at
    if end is None:
        return
    left = end - platform.now()
    if life_s is None or life_s > left:
        raise InvalidRequest(
            "A key that ends makes only keys that end no later.",
            param="expires_after_s",
            code="invalid_value",
            remedy=f"Give at most {left} seconds, or use a key without an end.",
        )


def _keep_the_first_key(platform: Platform, tx: Tx, caller: Caller, key_id: str) -> None:
    key = accounts.get_key(tx, key_id, caller.organization_id)
    if key is None or key.kind is not KeyKind.ROOT or key.revoked_at is not None:
        return
    now = platform.now()
    others = [
        one
        for one in accounts.list_admin_keys(tx, caller.organization_id)
        if one.revoked_at is None and (one.expires_at is None or one.expires_at > now)
    ]
    if caller.key_id != key.id or not others:
        raise Conflict(
            "The first key of the machine ends itself alone, and only where there is an admin key "
            "to go on with.",
            param="key_id",
            code="first_key",
            remedy="Make one with `afina keys create NAME --admin`, then use the first key for it.",
        )


def _end_key(platform: Platform, caller: Caller, key: ApiKey) -> ApiKey:
    if key.id == caller.key_id or key.kind is KeyKind.ROOT:
        raise InvalidRequest(
            "The key that asks and the first key of the machine cannot be ended here.",
            param="api_key_id",
            remedy="End it with another admin key, or make a new first key by hand.",
        )
    ended = replace(key, revoked_at=platform.now())
    with platform.database.write() as tx:
        accounts.update_key(tx, ended)
        note(platform, tx, caller, "api_key.deleted", key.id, project_id=key.project_id)
    return ended


def _check_life(seconds: int) -> None:
    if not 1 <= seconds <= _LONGEST_LIFE_S:
        raise InvalidRequest(
            "A key lives from one second to ten years.",
            param="expires_in_seconds",
            code="invalid_value",
        )


def _check_scopes(asked: tuple[str, ...]) -> None:
    unknown = sorted(set(asked) - scopes.KNOWN)
    if unknown:
        raise InvalidRequest(
            f"There is no scope {unknown[0][:64]}.",
            param="scopes",
            code="invalid_value",
            remedy=f"There are {', '.join(sorted(scopes.KNOWN))}.",
        )


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"No such API key: {key_id[:64]}", param="key_id")


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _kept_secret(path: Path) -> str | None:
    """The key that a start before this one wrote but did not come to store."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if SECRET.fullmatch(text) else None


def _write_secret(path: Path, secret: str) -> None:
    staged = path.with_name(".api-key.new")
    try:
        staged.unlink(missing_ok=True)
        number = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except OSError as error:
        raise BadSettings(
            f"The first API key cannot be written to {path}: {error.strerror}.",
            remedy="Make the data directory writable for this user.",
        ) from None
