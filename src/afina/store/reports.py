"""Sums of the ledger over an organization, in buckets of time."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Row, Select, case, cast, func, select

from afina.domain.ids import REQUEST
from afina.domain.prices import PICO
from afina.domain.reports import ReportLine, ReportQuery
from afina.store.database import Tx
from afina.store.tables import API_KEYS, LEDGER

_PICO_A_MICRO: Final = PICO // 1_000_000
_COUNTS: Final = ("trained_tokens", "prompt_tokens", "cached_tokens", "completion_tokens")
_GROUPS: Final[dict[str, ColumnElement[Any]]] = {
    "project_id": LEDGER.c.project_id,
    "api_key_id": LEDGER.c.key_id,
    "model": LEDGER.c.model,
    "batch": LEDGER.c.batch,
    "user_id": API_KEYS.c.owner_id,
    "line_item": LEDGER.c.model + ", " + LEDGER.c.kind,
}

_IS_FURTHER: Final = LEDGER.c.request_id.startswith(REQUEST, autoescape=True) & (
    LEDGER.c.request_id.contains("-", autoescape=True)
)
"""A completion of several prompts, or one whose prompt is scored, asks the engine more than once:
after the first time its id is `req_…-1`, `req_…-echo`. It is one request all the same."""


def report_lines(tx: Tx, organization_id: str, query: ReportQuery) -> dict[int, list[ReportLine]]:
    """The lines of each bucket that has any, by the bucket's start."""
    bucket = cast(LEDGER.c.time // query.width_s, Integer).label("bucket")
    groups = [_GROUPS[name].label(f"group_{name}") for name in query.groups]
    sums = [func.sum(LEDGER.c[name]).label(name) for name in _COUNTS]
    statement = select(
        bucket,
        *groups,
        *sums,
        func.sum(LEDGER.c.amount_micro).label("micro"),
        func.sum(LEDGER.c.amount_rest_pico).label("rest"),
        func.sum(case((_IS_FURTHER, 0), else_=1)).label("requests"),
    ).select_from(LEDGER.outerjoin(API_KEYS, API_KEYS.c.id == LEDGER.c.key_id))
    statement = _narrowed(statement, organization_id, query)
    found: dict[int, list[ReportLine]] = {}
    for row in tx.execute(statement.group_by(bucket, *groups).order_by(bucket, *groups)):
        start = int(row.bucket) * query.width_s
        found.setdefault(start, []).append(_line(row, query.groups))
    return found


def _narrowed(statement: Select[Any], organization_id: str, query: ReportQuery) -> Select[Any]:
    statement = statement.where(
        LEDGER.c.organization_id == organization_id,
        LEDGER.c.time >= query.start,
        LEDGER.c.time < query.end,
        LEDGER.c.kind.in_([kind.value for kind in query.kinds]),
    )
    for name, wanted in (
        ("project_id", query.projects),
        ("user_id", query.users),
        ("api_key_id", query.keys),
        ("model", query.models),
        ("line_item", query.line_items),
    ):
        if wanted:
            statement = statement.where(_GROUPS[name].in_(wanted))
    if query.batch is not None:
        statement = statement.where(LEDGER.c.batch.is_(query.batch))
    return statement


def _line(row: Row[Any], groups: tuple[str, ...]) -> ReportLine:
    values = row._mapping
    return ReportLine(
        group=tuple((name, values[f"group_{name}"]) for name in groups),
        requests=int(row.requests),
        amount_pico=int(row.micro) * _PICO_A_MICRO + int(row.rest),
        **{name: int(values[name]) for name in _COUNTS},
    )
