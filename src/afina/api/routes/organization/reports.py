"""/v1/organization/{usage,costs}: the ledger of the organization in buckets of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.routes.organization.shared import Texts
from afina.domain.ledger import EntryKind
from afina.domain.prices import dollars
from afina.domain.reports import WIDTHS, Report, ReportLine, ReportQuery
from afina.errors import InvalidRequest, UnsupportedField
from afina.service.refusals import LaxWire
from afina.service.reports import report

router = APIRouter(prefix="/v1/organization", tags=["organization"], responses=ERRORS)
Moment = Annotated[int, Field(ge=0, le=2**40)]
_PAGE: Final = "page_"
_LIMITS: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
_COST_DAYS: Final = 180
_TIER: Final = "service_tier"
_OFFERED: Final = {
    "completions": (EntryKind.INFERENCE,),
    "embeddings": (EntryKind.EMBEDDING,),
    "moderations": (EntryKind.MODERATION,),
}


def _one(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Report(LaxWire):
    start_time: Moment
    end_time: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=1440)] | None = None
    page: Annotated[str, Field(max_length=32)] | None = None
    project_ids: Texts | None = None
    api_key_ids: Texts | None = None
    user_ids: Texts | None = None


class UsageQuery(_Report):
    """GET /v1/organization/usage/{kind}."""

    bucket_width: Literal["1m", "1h", "1d"] = "1d"
    group_by: (
        Annotated[
            list[
                Literal[
                    "project_id",
                    "user_id",
                    "api_key_id",
                    "model",
                    "batch",
                    "service_tier",
                    "api_source",
                ]
            ],
            BeforeValidator(_one),
        ]
        | None
    ) = None
    models: Texts | None = None
    batch: bool | None = None


class CostsQuery(_Report):
    """GET /v1/organization/costs."""

    bucket_width: Literal["1d"] = "1d"
    group_by: (
        Annotated[
            list[Literal["project_id", "user_id", "line_item", "api_key_id", "api_source"]],
            BeforeValidator(_one),
        ]
        | None
    ) = None
    line_items: Texts | None = None


SHAPES: Final[tuple[type[BaseModel], ...]] = (UsageQuery, CostsQuery)


@router.get(
    "/usage/completions", summary="Usage of answers", openapi_extra=documented(query=UsageQuery)
)
def completions(
    call: Caller_, asked: Annotated[UsageQuery, Depends(query(UsageQuery))]
) -> Response:
    """Chats, completions and responses."""
    return _usage(call, "completions", asked)


@router.get(
    "/usage/embeddings", summary="Usage of embeddings", openapi_extra=documented(query=UsageQuery)
)
def embeddings(call: Caller_, asked: Annotated[UsageQuery, Depends(query(UsageQuery))]) -> Response:
    """Texts that were embedded."""
    return _usage(call, "embeddings", asked)


@router.get(
    "/usage/moderations", summary="Usage of moderation", openapi_extra=documented(query=UsageQuery)
)
def moderations(
    call: Caller_, asked: Annotated[UsageQuery, Depends(query(UsageQuery))]
) -> Response:
    """Texts that were moderated when somebody asked; what the platform moderates of its own accord
    is not among them."""
    return _usage(call, "moderations", asked)


@router.get("/costs", summary="Costs by the day", openapi_extra=documented(query=CostsQuery))
def costs(call: Caller_, asked: Annotated[CostsQuery, Depends(query(CostsQuery))]) -> Response:
    """Training, answers, everything; a line item is `<model>, <kind>`."""
    if asked.limit is not None and asked.limit > _COST_DAYS:
        raise _limit_too_high(_COST_DAYS)
    groups = _groups(asked.group_by or [])
    found = report(
        call.platform,
        call.caller,
        ReportQuery(
            kinds=tuple(EntryKind),
            start=_start(asked),
            end=_end(call, asked),
            width_s=WIDTHS["1d"],
            limit=asked.limit or 7,
            groups=groups,
            projects=tuple(asked.project_ids or ()),
            users=tuple(asked.user_ids or ()),
            keys=tuple(asked.api_key_ids or ()),
            line_items=tuple(asked.line_items or ()),
        ),
    )
    return _shown(found, _cost)


def _usage(call: Call, kind: str, asked: UsageQuery) -> Response:
    usual, most = _LIMITS[asked.bucket_width]
    if asked.limit is not None and asked.limit > most:
        raise _limit_too_high(most)
    groups = _groups(asked.group_by or [])
    if kind != "completions":
        _refuse_batch(asked, groups)
    found = report(
        call.platform,
        call.caller,
        ReportQuery(
            kinds=_OFFERED[kind],
            start=_start(asked),
            end=_end(call, asked),
            width_s=WIDTHS[asked.bucket_width],
            limit=asked.limit or usual,
            groups=tuple(name for name in groups if name != _TIER),
            projects=tuple(asked.project_ids or ()),
            users=tuple(asked.user_ids or ()),
            keys=tuple(asked.api_key_ids or ()),
            models=tuple(asked.models or ()),
            batch=asked.batch,
        ),
    )
    if kind != "completions":
        return _shown(found, _texts(kind))
    # Answers are of one tier, and say so.
    tier = {_TIER: "default" if _TIER in groups else None}
    return _shown(found, lambda line: _completions(line) | tier)


def _refuse_batch(asked: UsageQuery, groups: Sequence[str]) -> None:
    for name in ("batch", _TIER):
        if name in groups:
            raise UnsupportedField(
                f"Grouping by '{name}' is for usage/completions alone.", param="group_by"
            )
    if asked.batch is not None:
        raise UnsupportedField("'batch' is for usage/completions alone.", param="batch")


def _groups(asked: Sequence[str]) -> tuple[str, ...]:
    if "api_source" in asked:
        raise UnsupportedField(
            "Grouping by 'api_source' is not supported: there is only one.", param="group_by"
        )
    return tuple(dict.fromkeys(asked))


def _start(asked: _Report) -> int:
    if asked.page is None:
        return asked.start_time
    number = asked.page.removeprefix(_PAGE)
    if not number.isdecimal() or int(number) < asked.start_time:
        raise InvalidRequest(
            "This is no page of this report.", param="page", remedy="Start again without `page`."
        )
    return int(number)


def _end(call: Call, asked: _Report) -> int:
    return call.platform.now() + 1 if asked.end_time is None else asked.end_time


def _limit_too_high(most: int) -> InvalidRequest:
    return InvalidRequest(
        f"limit must be at most {most} here.", param="limit", code="integer_above_max_value"
    )


def _shown(found: Report, shape: Any) -> Response:
    data = [
        {
            "object": "bucket",
            "start_time": bucket.start,
            "end_time": bucket.end,
            "results": [shape(line) for line in bucket.lines],
        }
        for bucket in found.buckets
    ]
    next_page = None if found.next_start is None else f"{_PAGE}{found.next_start}"
    return answer(
        {
            "object": "page",
            "data": data,
            "has_more": next_page is not None,
            "next_page": next_page,
        }
    )


def _grouped(line: ReportLine) -> dict[str, Any]:
    names = ("project_id", "user_id", "api_key_id", "model")
    return dict.fromkeys(names) | dict(line.group)


def _completions(line: ReportLine) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": line.prompt_tokens,
        "input_cached_tokens": line.cached_tokens,
        "input_uncached_tokens": line.prompt_tokens - line.cached_tokens,
        "output_tokens": line.completion_tokens,
        "num_model_requests": line.requests,
        "batch": None,
        **_grouped(line),
    }


def _texts(kind: str) -> Any:
    def shape(line: ReportLine) -> dict[str, Any]:
        return {
            "object": f"organization.usage.{kind}.result",
            "input_tokens": line.prompt_tokens,
            "num_model_requests": line.requests,
            **_grouped(line),
        }

    return shape


def _cost(line: ReportLine) -> dict[str, Any]:
    grouped = dict.fromkeys(("project_id", "user_id", "api_key_id", "line_item"))
    by_item = any(name == "line_item" for name, _ in line.group)
    return {
        "object": "organization.costs.result",
        "amount": {"value": float(dollars(line.amount_pico)), "currency": "usd"},
        **grouped,
        **dict(line.group),
        "quantity": line.tokens if by_item else None,
        "quantity_unit": "tokens" if by_item else None,
        "afina": {"amount_pico": line.amount_pico},
    }
