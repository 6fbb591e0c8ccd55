"""Who a key speaks for: its project, its owner, and what they may do at this moment.

Secrets are `service.keys`' business; this is for a key whose secret has been seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from afina.domain.accounts import ApiKey, Caller, OwnerKind, Project, ServiceAccount
from afina.errors import Unauthenticated, Unavailable
from afina.service.platform import Platform
from afina.store import accounts, people
from afina.store.database import Tx

_USE_NOTED_EVERY_S: Final = 300


@dataclass(frozen=True)
class Holder:
    """Where a key belongs."""

    project: Project | None
    user_id: str | None
    account: ServiceAccount | None


def holder_of(tx: Tx, key: ApiKey) -> Holder:
    """The key's project and owner."""
    project = accounts.get_project(tx, key.project_id)
    owner = key.owner_id or ""
    if key.owner_kind is OwnerKind.SERVICE_ACCOUNT:
        return Holder(project, None, people.get_service_account(tx, owner))
    return Holder(project, owner or None, None)


def caller_by(platform: Platform, key: ApiKey, holder: Holder) -> Caller:
    """What the key may do now; notes that it was used. Raises Unauthenticated for an ended one."""
    now = platform.now()
    _refuse_ended(key, holder.project, now)
    if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED_EVERY_S:
        _note_use(platform, key.id, now)
    account = holder.account
    allowed = key.scopes
    if account is not None and account.role == "none" and allowed is None:
        allowed = ()  # the account may do nothing, so a key that may do what it may does nothing
    return Caller(
        project_id=key.project_id,
        key_id=key.id,
        organization_id=key.organization_id,
        kind=key.kind,
        scopes=allowed,
        user_id=holder.user_id,
        account_id=None if account is None else account.id,
    )


def _note_use(platform: Platform, key_id: str, now: int) -> None:
    try:
        with platform.database.write() as tx:
            accounts.touch_key(tx, key_id, now)
    except Unavailable:
        return  # A busy database must not keep a valid key out.


def _refuse_ended(key: ApiKey, project: Project | None, now: int) -> None:
    if key.revoked_at is not None:
        raise Unauthenticated("This API key has been revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated("This API key has expired.")
    if project is not None and project.archived_at is not None:
        raise Unauthenticated("The project of this API key is archived.")
