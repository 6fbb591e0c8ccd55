"""/v1/organization/projects: create, list, get, rename, archive."""

from __future__ import annotations

from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.api.routes.organization.shared import ListQuery, body_of, short_page
from afina.domain.accounts import Project
from afina.errors import UnsupportedField
from afina.service import projects
from afina.service.refusals import Wire

router = APIRouter(prefix="/v1/organization/projects", tags=["organization"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))
Name = Annotated[str, Field(min_length=1, max_length=200)]


class ProjectCreate(Wire):
    """POST /v1/organization/projects."""

    name: Name
    external_key_id: str | None = None
    geography: str | None = None
    residency: str | None = None


class ProjectUpdate(Wire):
    """POST /v1/organization/projects/{id}."""

    name: Name | None = None
    external_key_id: str | None = None
    geography: str | None = None


class ProjectListQuery(ListQuery):
    """GET /v1/organization/projects."""

    include_archived: bool = False


SHAPES: Final[tuple[type[BaseModel], ...]] = (ProjectCreate, ProjectUpdate, ProjectListQuery)


@router.post(
    "",
    summary="Make a project",
    openapi_extra=documented(body=ProjectCreate),
    dependencies=[_NO_QUERY],
)
async def create(call: Caller_) -> Response:
    """Its first key comes from a service account or from `afina keys create --project`."""
    asked = await body_of(call, ProjectCreate)
    _refuse_elsewhere(asked)
    made = await to_thread.run_sync(projects.create_project, call.platform, call.caller, asked.name)
    return answer(_project(made))


@router.get("", summary="List projects", openapi_extra=documented(query=ProjectListQuery))
def list_all(
    call: Caller_, asked: Annotated[ProjectListQuery, Depends(query(ProjectListQuery))]
) -> Response:
    """Oldest first."""
    found = projects.list_projects(call.platform, call.caller, archived=asked.include_archived)
    return short_page(found, _project, asked)


@router.get("/{project_id}", summary="A project", dependencies=[_NO_QUERY])
def retrieve(call: Caller_, project_id: str) -> Response:
    """Also an archived one."""
    return answer(_project(projects.get_project(call.platform, call.caller, project_id)))


@router.post(
    "/{project_id}",
    summary="Rename a project",
    openapi_extra=documented(body=ProjectUpdate),
    dependencies=[_NO_QUERY],
)
async def update(call: Caller_, project_id: str) -> Response:
    """Without a name nothing changes."""
    asked = await body_of(call, ProjectUpdate)
    _refuse_elsewhere(asked)
    if asked.name is None:
        found = await to_thread.run_sync(
            projects.get_project, call.platform, call.caller, project_id
        )
        return answer(_project(found))
    renamed = await to_thread.run_sync(
        projects.rename_project, call.platform, call.caller, project_id, asked.name
    )
    return answer(_project(renamed))


@router.post("/{project_id}/archive", summary="Archive a project", dependencies=[_NO_QUERY])
def archive(call: Caller_, project_id: str) -> Response:
    """Its keys open nothing any more; what it owns stays."""
    archived = projects.archive_project(call.platform, call.caller, project_id)
    call.parts.keyring.forget_all()
    return answer(_project(archived))


def _refuse_elsewhere(asked: ProjectCreate | ProjectUpdate) -> None:
    for name in ("external_key_id", "geography", "residency"):
        if getattr(asked, name, None) is not None:
            raise UnsupportedField(
                f"'{name}' is not supported: everything stays on this machine.", param=name
            )


def _project(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "created_at": project.created_at,
        "archived_at": project.archived_at,
        "status": "active" if project.archived_at is None else "archived",
        "external_key_id": None,
    }
