"""`afina usage`: the ledger, summed: tokens trained and used, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from afina.cli.options import DataOption, JsonOption, ServerOption, open_client
from afina.cli.terminal import in_count, in_dollars, print_json, print_table

_SUMS = ("trained_tokens", "prompt_tokens", "cached_tokens", "completion_tokens")


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Group by model, kind, day or key; may be given several times."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="From this day on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Before this day.")] = None,
    server: ServerOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was used: tokens of training and answers, and money."""
    groups = by or ["model", "kind"]
    with open_client(data, server) as client:
        found = client.get(
            "/v1/afina/usage",
            group_by=",".join(groups),
            start_time=_day(since),
            end_time=_day(until),
        )
    if json:
        print_json(found)
        return
    rows = found["data"]
    columns = [*groups, ">entries", ">trained", ">prompt", ">cached", ">completion", ">cost"]
    print_table(columns, [*(_row(row, groups) for row in rows), _total(rows, len(groups))])


def _row(row: dict[str, Any], groups: list[str]) -> list[str]:
    return [
        *(str(row["group"].get(name) or "–") for name in groups),
        in_count(row["entries"]),
        *(in_count(row[name]) for name in _SUMS),
        in_dollars(row["cost"]),
    ]


def _total(rows: list[dict[str, Any]], groups: int) -> list[str]:
    from decimal import Decimal

    return [
        "in all",
        *[""] * (groups - 1),
        in_count(sum(row["entries"] for row in rows)),
        *(in_count(sum(row[name] for row in rows)) for name in _SUMS),
        in_dollars(sum((Decimal(str(row["cost"])) for row in rows), Decimal(0))),
    ]


def _day(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise typer.BadParameter(f"{text} is not a day such as 2026-01-31") from None
