"""API keys: 256 bits, stored as a hash, shown once.

The first key of an installation is made with its organization and project and written to
DATA/api-key, so that one machine alone needs no accounts.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Final

from afina.domain import ids
from afina.domain.accounts import ApiKey, Caller, Organization, Project
from afina.errors import BadSettings, InvalidRequest, NotFound, Unauthenticated, Unavailable
from afina.service.platform import Platform
from afina.store import accounts
from afina.store.database import Tx
from afina.store.dialects import lock_name

SECRET: Final = re.compile(r"sk-afina-[A-Za-z0-9]{43}")
_PREFIX_SHOWN: Final = len("sk-afina-") + 3
_USE_NOTED_EVERY_S: Final = 300
_MAX_NAME: Final = 200


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
    now = platform.now()
    if found is None or not hmac.compare_digest(found[1], digest):
        raise Unauthenticated(
            "Incorrect API key provided.", remedy="The first key is in DATA/api-key on the server."
        )
    key = found[0]
    if key.revoked_at is not None:
        raise Unauthenticated("This API key has been revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated("This API key has expired.")
    if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED_EVERY_S:
        _note_use(platform, key.id, now)
    return Caller(key.project_id, key.id, key.organization_id)


def create_key(
    platform: Platform, caller: Caller, name: str, expires_after_s: int | None = None
) -> tuple[ApiKey, str]:
    """A new key of the caller's project, and its secret, which is never shown again."""
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            f"A key's name has 1 to {_MAX_NAME} printable characters.", param="name"
        )
    if expires_after_s is not None and expires_after_s < 1:
        raise InvalidRequest("A key must live for at least a second.", param="expires_after_s")
    secret = platform.ids.secret()
    with platform.database.write() as tx:
        key = _insert_key(platform, tx, caller, name, secret, expires_after_s)
    return key, secret


def list_keys(platform: Platform, caller: Caller) -> list[ApiKey]:
    """The project's keys, newest first, revoked ones too."""
    with platform.database.read() as tx:
        return accounts.list_keys(tx, caller.project_id)


def revoke_key(platform: Platform, caller: Caller, key_id: str) -> ApiKey:
    """From now on the key opens nothing. Raises NotFound."""
    with platform.database.write() as tx:
        key = accounts.revoke_key(tx, key_id, caller.project_id, platform.now())
    if key is None:
        raise NotFound(f"No such API key: {key_id}", param="key_id")
    return key


def _insert_first(platform: Platform, tx: Tx, secret: str) -> None:
    now, slug = platform.now(), platform.settings.organization
    organization = Organization(platform.ids.new(ids.ORGANIZATION), slug, slug, now)
    project = Project(platform.ids.new(ids.PROJECT), organization.id, "Default project", now)
    accounts.insert_organization(tx, organization)
    accounts.insert_project(tx, project)
    owner = Caller(project.id, "", organization.id)
    _insert_key(platform, tx, owner, "First key", secret, None)


def _insert_key(
    platform: Platform, tx: Tx, owner: Caller, name: str, secret: str, expires_after_s: int | None
) -> ApiKey:
    now = platform.now()
    key = ApiKey(
        id=platform.ids.new(ids.KEY),
        project_id=owner.project_id,
        organization_id=owner.organization_id,
        name=name,
        prefix=secret[:_PREFIX_SHOWN],
        last4=secret[-4:],
        created_at=now,
        expires_at=None if expires_after_s is None else now + expires_after_s,
    )
    accounts.insert_key(tx, key, _hash(secret), platform.clock.now())
    return key


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _note_use(platform: Platform, key_id: str, now: int) -> None:
    try:
        with platform.database.write() as tx:
            accounts.touch_key(tx, key_id, now)
    except Unavailable:
        return  # A busy database must not keep a valid key out.


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
