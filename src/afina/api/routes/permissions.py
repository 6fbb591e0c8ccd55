"""/v1/fine_tuning/checkpoints/{model}/permissions: tuned models for other projects."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from afina.api.answers import DeletedObject, ListObject, answer, deleted, listing, page
from afina.api.body import read_json
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After, NoQuery
from afina.service import permissions
from afina.service.refusals import LaxWire, Wire, parse
from afina.store.permissions import Permission

router = APIRouter(
    prefix="/v1/fine_tuning/checkpoints/{model:path}", tags=["fine-tuning"], responses=ERRORS
)
_NO_QUERY = Depends(query(NoQuery))


class PermissionCreate(Wire):
    """POST …/permissions."""

    project_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]],
        Field(min_length=1, max_length=100),
    ]


class PermissionListQuery(LaxWire):
    """GET …/permissions."""

    project_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    after: After | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    order: Literal["ascending", "descending"] = "descending"


SHAPES: tuple[type[BaseModel], ...] = (PermissionCreate, PermissionListQuery)


class PermissionObject(TypedDict):
    """A project that may use a model of another one."""

    id: str
    object: str
    created_at: int
    project_id: str


@router.get(
    "/permissions",
    summary="List permissions on a checkpoint",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(query=PermissionListQuery),
)
def list_permissions(
    call: Caller_,
    model: str,
    asked: Annotated[PermissionListQuery, Depends(query(PermissionListQuery))],
) -> Response:
    """Needs an admin key, or the machine's first key."""
    found = permissions.list_permissions(
        call.platform,
        call.caller,
        model,
        asked.project_id,
        page=(asked.after, asked.limit),
        order=asked.order,
    )
    return answer(page(found, _permission, ids=True))


@router.post(
    "/permissions",
    summary="Let projects use a checkpoint",
    responses={200: {"model": ListObject}},
    openapi_extra=documented(body=PermissionCreate),
    dependencies=[_NO_QUERY],
)
async def grant(call: Caller_, model: str) -> Response:
    """The answer lists the permissions of the projects named."""
    body = await read_json(call.request, call.parts.settings.max_body_bytes)
    asked = parse(PermissionCreate, body)
    granted = await to_thread.run_sync(
        permissions.grant, call.platform, call.caller, model, asked.project_ids
    )
    return answer(listing([_permission(p) for p in granted], has_more=False, ids=True))


@router.delete(
    "/permissions/{permission_id}",
    summary="End a permission",
    responses={200: {"model": DeletedObject}},
    dependencies=[_NO_QUERY],
)
def revoke(call: Caller_, model: str, permission_id: str) -> Response:
    """The project does not know the model any more."""
    permissions.revoke(call.platform, call.caller, model, permission_id)
    return answer(deleted(permission_id, "checkpoint.permission"))


def _permission(permission: Permission) -> dict[str, Any]:
    return {
        "id": permission.id,
        "object": "checkpoint.permission",
        "created_at": permission.created_at,
        "project_id": permission.project_id,
    }
