"""Projects of an organization: what owns files, jobs, models and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from afina.domain import ids
from afina.domain.accounts import Caller, Project
from afina.errors import InvalidRequest, NotFound
from afina.service.audit import note, require_admin
from afina.service.platform import Platform
from afina.store import accounts
from afina.store.database import Tx

_MAX_NAME: Final = 200


def create_project(platform: Platform, caller: Caller, name: str) -> Project:
    """A new project of the caller's organization."""
    require_admin(caller)
    check_name(name)
    project = Project(platform.ids.new(ids.PROJECT), caller.organization_id, name, platform.now())
    with platform.database.write() as tx:
        accounts.insert_project(tx, project)
        note(platform, tx, caller, "project.created", project.id, project_id=project.id)
    return project


def list_projects(platform: Platform, caller: Caller, *, archived: bool = False) -> list[Project]:
    """The organization's projects, oldest first; with `archived`, those too."""
    require_admin(caller)
    with platform.database.read() as tx:
        found = accounts.list_projects(tx, caller.organization_id)
    return [project for project in found if archived or project.archived_at is None]


def get_project(platform: Platform, caller: Caller, project_id: str) -> Project:
    """A project of the organization. Raises NotFound."""
    require_admin(caller)
    with platform.database.read() as tx:
        return project_of(tx, caller, project_id)


def rename_project(platform: Platform, caller: Caller, project_id: str, name: str) -> Project:
    """Gives the project another name. Raises NotFound, and InvalidRequest for an archived one."""
    require_admin(caller)
    check_name(name)
    with platform.database.write() as tx:
        project = live_project(tx, caller, project_id)
        renamed = replace(project, name=name)
        accounts.update_project(tx, renamed)
        note(platform, tx, caller, "project.updated", project.id, project_id=project.id)
    return renamed


def archive_project(platform: Platform, caller: Caller, project_id: str) -> Project:
    """Ends the project: its keys open nothing any more; what it owns stays. Archiving again
    changes nothing. Raises NotFound, and InvalidRequest for the caller's own project."""
    require_admin(caller)
    with platform.database.write() as tx:
        project = project_of(tx, caller, project_id)
        if project.id == caller.project_id:
            raise InvalidRequest(
                "The project of the key that asks cannot be archived: nobody could go on here.",
                param="project_id",
                code="default_project",
            )
        if project.archived_at is None:
            project = replace(project, archived_at=platform.now())
            accounts.update_project(tx, project)
            note(platform, tx, caller, "project.archived", project.id, project_id=project.id)
    return project


def project_of(tx: Tx, caller: Caller, project_id: str) -> Project:
    """The project, if it is the caller's organization's. Raises NotFound."""
    project = accounts.get_project(tx, project_id)
    if project is None or project.organization_id != caller.organization_id:
        raise NotFound(f"No such project: {project_id[:64]}", param="project_id")
    return project


def live_project(tx: Tx, caller: Caller, project_id: str) -> Project:
    """As `project_of`; an archived one is an InvalidRequest, because it takes no changes."""
    project = project_of(tx, caller, project_id)
    if project.archived_at is not None:
        raise InvalidRequest(
            f"The project {project.id} is archived.", param="project_id", code="project_archived"
        )
    return project


def check_name(name: str, param: str = "name") -> None:
    """Raises InvalidRequest unless it is 1 to 200 printable characters."""
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise InvalidRequest(f"A name has 1 to {_MAX_NAME} printable characters.", param=param)
