"""Usage and costs of the organization, from the ledger."""

from __future__ import annotations

from dataclasses import replace

from afina.domain.accounts import Caller
from afina.domain.reports import Report, ReportBucket, ReportQuery
from afina.errors import InvalidRequest
from afina.service.audit import require_admin
from afina.service.platform import Platform
from afina.store import reports


def report(platform: Platform, caller: Caller, query: ReportQuery) -> Report:
    """Up to `query.limit` buckets, empty ones too, so that a chart has no holes."""
    require_admin(caller)
    if query.end <= query.start:
        raise InvalidRequest("The span must end after it starts.", param="end_time")
    width = query.width_s
    first = query.start // width * width
    last = min(query.end, first + query.limit * width)
    with platform.database.read() as tx:
        lines = reports.report_lines(tx, caller.organization_id, replace(query, end=last))
    buckets = tuple(
        ReportBucket(start, min(start + width, query.end), tuple(lines.get(start, ())))
        for start in range(first, last, width)
    )
    return Report(buckets, last if last < query.end else None)
