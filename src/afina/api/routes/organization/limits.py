"""/v1/organization/projects/{id}/rate_limits: what a project may ask for, by base model."""

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
from afina.api.requests import After, NoQuery
from afina.api.routes.organization.shared import ListQuery, body_of, short_page
from afina.domain.limits import RateLimit
from afina.errors import UnsupportedField
from afina.service import limits
from afina.service.refusals import Wire

router = APIRouter(
    prefix="/v1/organization/projects/{project_id}/rate_limits",
    tags=["organization"],
    responses=ERRORS,
)
Count = Annotated[int, Field(ge=0, le=2**53)]
_UNLIMITED: Final = 2**31 - 1
"""What the wire shows where there is no limit: its fields must be numbers."""
_FIELDS: Final = {
    "max_requests_per_1_minute": "requests_per_minute",
    "max_tokens_per_1_minute": "tokens_per_minute",
    "max_requests_per_1_day": "requests_per_day",
}


class RateLimitListQuery(ListQuery):
    """GET …/rate_limits."""

    limit: Annotated[int, Field(ge=1, le=100)] = 100
    before: After | None = None


class RateLimitUpdate(Wire):
    """POST …/rate_limits/{id}."""

    max_requests_per_1_minute: Count | None = None
    max_tokens_per_1_minute: Count | None = None
    max_requests_per_1_day: Count | None = None
    max_images_per_1_minute: Count | None = None
    max_audio_megabytes_per_1_minute: Count | None = None
    batch_1_day_max_input_tokens: Count | None = None


SHAPES: Final[tuple[type[BaseModel], ...]] = (RateLimitListQuery, RateLimitUpdate)


@router.get("", summary="List rate limits", openapi_extra=documented(query=RateLimitListQuery))
def list_all(
    call: Caller_,
    project_id: str,
    asked: Annotated[RateLimitListQuery, Depends(query(RateLimitListQuery))],
) -> Response:
    """One for each base model; tuned models share their base's."""
    found = limits.list_rate_limits(call.platform, call.caller, project_id)
    return short_page(found, _limit, asked, before=asked.before)


@router.post(
    "/{limit_id:path}",
    summary="Change a rate limit",
    openapi_extra=documented(body=RateLimitUpdate),
    dependencies=[Depends(query(NoQuery))],
)
async def update(call: Caller_, project_id: str, limit_id: str) -> Response:
    """Holds from the next second on."""
    asked = await body_of(call, RateLimitUpdate)
    for name in RateLimitUpdate.model_fields:
        if name not in _FIELDS and getattr(asked, name) is not None:
            raise UnsupportedField(f"'{name}' is not supported here.", param=name)
    changes = {
        ours: value
        for theirs, ours in _FIELDS.items()
        if (value := getattr(asked, theirs)) is not None
    }
    changed = await to_thread.run_sync(
        limits.change_rate_limit, call.platform, call.caller, project_id, limit_id, changes
    )
    return answer(_limit(changed))


def _limit(limit: RateLimit) -> dict[str, Any]:
    numbers = {theirs: getattr(limit, ours) for theirs, ours in _FIELDS.items()}
    return {
        "id": limits.PREFIX + limit.model,
        "object": "project.rate_limit",
        "model": limit.model,
        **{name: _UNLIMITED if value is None else value for name, value in numbers.items()},
    }
