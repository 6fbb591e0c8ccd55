"""Permissions on checkpoints: an admin lets other projects of its organization use a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from afina.domain.accounts import Caller
from afina.domain.ids import PERMISSION
from afina.domain.pages import Page
from afina.errors import InvalidRequest, ModelNotFound, NotFound
from afina.service.audit import note, require_admin
from afina.service.files import check_limit
from afina.service.platform import Platform
from afina.service.projects import live_project, project_of
from afina.store import models, permissions
from afina.store.database import Tx
from afina.store.permissions import Permission

MAX_PROJECTS: Final = 100
Order = Literal["ascending", "descending"]


def grant(
    platform: Platform, caller: Caller, model: str, project_ids: Sequence[str]
) -> list[Permission]:
    """Lets the projects use the model; doing it again changes nothing. Raises Forbidden,
    ModelNotFound, NotFound."""
    require_admin(caller)
    if not 1 <= len(project_ids) <= MAX_PROJECTS:
        raise InvalidRequest(
            f"project_ids must name 1 to {MAX_PROJECTS} projects.",
            param="project_ids",
            code="invalid_value",
        )
    granted = []
    with platform.database.write() as tx:
        _model(tx, caller, model)
        for project_id in project_ids:
            live_project(tx, caller, project_id)
            new = Permission(platform.ids.new(PERMISSION), model, project_id, platform.now())
            kept = permissions.grant(tx, new, platform.clock.now())
            granted.append(kept)
            if kept == new:
                kind = "checkpoint.permission.created"
                note(platform, tx, caller, kind, new.id, project_id=project_id)
    return granted


def list_permissions(
    platform: Platform,
    caller: Caller,
    model: str,
    project_id: str | None = None,
    *,
    page: tuple[str | None, int] = (None, 10),
    order: Order = "descending",
) -> Page[Permission]:
    """Newest first unless `order` says otherwise. Raises Forbidden, ModelNotFound."""
    require_admin(caller)
    check_limit(page[1], 100)
    with platform.database.read() as tx:
        _model(tx, caller, model)
        return permissions.list_permissions(
            tx, model, project_id, page, ascending=order == "ascending"
        )


def revoke(platform: Platform, caller: Caller, model: str, id: str) -> None:
    """From now on the project does not know the model. Raises Forbidden, ModelNotFound,
    NotFound."""
    require_admin(caller)
    with platform.database.write() as tx:
        _model(tx, caller, model)
        gone = permissions.revoke(tx, model, id)
        if gone is None:
            raise NotFound(f"No such permission: {id[:100]}", param="permission_id")
        kind = "checkpoint.permission.deleted"
        note(platform, tx, caller, kind, id, project_id=gone.project_id)


def _model(tx: Tx, caller: Caller, name: str) -> None:
    found = models.get_model(tx, name)
    if found is not None:
        try:
            project_of(tx, caller, found.project_id)
        except NotFound:
            found = None
    if found is None:
        raise ModelNotFound(f"The model `{name[:300]}` does not exist.", param="model")
