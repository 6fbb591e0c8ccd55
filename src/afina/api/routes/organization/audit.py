"""/v1/organization/audit_logs: who changed what."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer, page
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import After
from afina.api.routes.organization.shared import ListQuery, Texts
from afina.domain.audit import AuditEntry, AuditQuery
from afina.errors import UnsupportedField
from afina.service.audit import list_audit
from afina.service.refusals import LaxWire

router = APIRouter(prefix="/v1/organization", tags=["organization"], responses=ERRORS)
Moment = Annotated[int, Field(ge=0, le=2**40)]


class Span(LaxWire):
    """Unix seconds: after, at or after, before, at or before."""

    gt: Moment | None = None
    gte: Moment | None = None
    lt: Moment | None = None
    lte: Moment | None = None


class AuditListQuery(ListQuery):
    """GET /v1/organization/audit_logs."""

    effective_at: Span | None = None
    project_ids: Texts | None = None
    event_types: Texts | None = None
    actor_ids: Texts | None = None
    actor_emails: Texts | None = None
    resource_ids: Texts | None = None
    before: After | None = None
    tenant_only: bool | None = None


SHAPES: Final[tuple[type[BaseModel], ...]] = (AuditListQuery,)


@router.get("/audit_logs", summary="The audit log", openapi_extra=documented(query=AuditListQuery))
def list_all(
    call: Caller_, asked: Annotated[AuditListQuery, Depends(query(AuditListQuery))]
) -> Response:
    """Newest first. `event_types` may name types of afina's own too."""
    for name in ("before", "tenant_only"):
        if getattr(asked, name) is not None:
            raise UnsupportedField(
                f"'{name}' is not supported: go on with `after`, or narrow `effective_at`.",
                param=name,
            )
    found = list_audit(call.platform, call.caller, _query(asked), asked.after, asked.limit)
    return answer(page(found, _entry, ids=True))


def _query(asked: AuditListQuery) -> AuditQuery:
    span = asked.effective_at or Span()
    since = [t for t in (span.gte, None if span.gt is None else span.gt + 1) if t is not None]
    until = [t for t in (span.lte, None if span.lt is None else span.lt - 1) if t is not None]
    return AuditQuery(
        types=tuple(asked.event_types or ()),
        projects=tuple(asked.project_ids or ()),
        actors=tuple(asked.actor_ids or ()),
        emails=tuple(asked.actor_emails or ()),
        resources=tuple(asked.resource_ids or ()),
        since=max(since, default=None),
        until=min(until, default=None),
    )


def _entry(entry: AuditEntry) -> dict[str, Any]:
    actor: dict[str, Any] = {"id": entry.key_id, "type": "user"}
    if entry.user_id is not None:
        actor["user"] = {"id": entry.user_id}
    shown: dict[str, Any] = {
        "id": entry.id,
        "object": "organization.audit_log",
        "type": entry.type,
        "effective_at": entry.time,
        "actor": {"type": "api_key", "api_key": actor},
        entry.type: {"id": entry.resource_id, "data": dict(entry.data)},
    }
    if entry.project_id is not None:
        shown["project"] = {"id": entry.project_id}
    return shown
