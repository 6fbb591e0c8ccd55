"""The audit log: each verb that changes accounts, keys, limits or a model's right to answer notes
it here, in the transaction of the change."""

from __future__ import annotations

from typing import Final

from afina.domain import ids
from afina.domain.accounts import Caller
from afina.domain.audit import AuditEntry, AuditQuery
from afina.domain.pages import Page
from afina.errors import Forbidden
from afina.service.files import check_limit
from afina.service.platform import Platform
from afina.store import audit
from afina.store.database import Tx

MAX_LIST: Final = 100
_ALL: Final = AuditQuery()


def require_admin(caller: Caller) -> None:
    """Raises Forbidden unless the key manages the organization."""
    if not caller.manages_organization:
        raise Forbidden(
            "This key opens its project alone; managing the organization needs an admin key.",
            code="insufficient_permissions",
            remedy="Use the machine's first key, or make one with `afina keys create --admin`.",
        )


def note(
    platform: Platform, tx: Tx, caller: Caller, kind: str, resource_id: str, **data: object
) -> None:
    """Adds an entry to the log: `caller` did `kind` (`project.created`) to `resource_id`.

    The keyword `project_id` says where, the caller's project otherwise; `data` must hold no secret
    and no text of a user.
    """
    entry = AuditEntry(
        id=platform.ids.new(ids.AUDIT),
        time=platform.now(),
        organization_id=caller.organization_id,
        project_id=str(data.pop("project_id", caller.project_id)) or None,
        key_id=caller.key_id or None,
        user_id=caller.user_id,
        type=kind,
        resource_id=resource_id,
        data=data,
    )
    audit.append_audit(tx, entry, platform.clock.now())


def list_audit(
    platform: Platform,
    caller: Caller,
    query: AuditQuery = _ALL,
    after: str | None = None,
    limit: int = 20,
) -> Page[AuditEntry]:
    """The organization's log, newest first."""
    require_admin(caller)
    check_limit(limit, MAX_LIST)
    with platform.database.read() as tx:
        return audit.list_audit(tx, caller.organization_id, query, after, limit)
