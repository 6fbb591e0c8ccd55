"""The ledger: entries are added and read, never changed or removed.

An entry is unique by kind and request id, so a replay adds nothing. Amounts are exact integers:
sums are put together in Python, where they cannot overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Integer, Row, cast, func, select

from afina.domain.codec import encode
from afina.domain.ids import PROJECT
from afina.domain.ledger import EntryKind, LedgerEntry, UsageSum
from afina.domain.pages import Page
from afina.store.database import Tx
from afina.store.dialects import insert_new
from afina.store.ordering import next_order, read_page
from afina.store.tables import LEDGER

_PICO_A_MICRO: Final = 1_000_000
_DAY_S: Final = 86_400
_COUNTS: Final = ("trained_tokens", "prompt_tokens", "cached_tokens", "completion_tokens")

Grouping = Literal["model", "kind", "day", "key"]


@dataclass(frozen=True)
class Span:
    """From `start` to before `end`, in Unix seconds; None is open."""

    start: int | None = None
    end: int | None = None


def append_entries(tx: Tx, entries: Sequence[LedgerEntry], now: float) -> int:
    """Adds what is new of `entries`; says how many that were."""
    order = next_order(tx, LEDGER, now)
    return insert_new(tx, LEDGER, [_row(entry, order + i) for i, entry in enumerate(entries)])


def list_entries(tx: Tx, project_id: str, after: str | None, limit: int) -> Page[LedgerEntry]:
    """Newest first."""
    where = LEDGER.c.project_id == project_id
    rows, more = read_page(tx, LEDGER, where, after=after, limit=limit)
    return Page(tuple(_entry(row) for row in rows), more)


def sum_entries(tx: Tx, project_id: str, span: Span, groups: Sequence[Grouping]) -> list[UsageSum]:
    """Sums by group, in the order of the groups' values; a day is written as 2026-11-22."""
    keys = [_GROUPS[group].label(f"group_{group}") for group in groups]
    sums = [func.sum(LEDGER.c[name]).label(name) for name in _COUNTS]
    sums += [
        func.sum(LEDGER.c.amount_micro).label("micro"),
        func.sum(LEDGER.c.amount_rest_pico).label("rest"),
        func.count().label("entries"),
    ]
    query = select(*keys, *sums).where(LEDGER.c.project_id == project_id)
    if span.start is not None:
        query = query.where(LEDGER.c.time >= span.start)
    if span.end is not None:
        query = query.where(LEDGER.c.time < span.end)
    if keys:
        query = query.group_by(*keys).order_by(*keys)
    return [_sum(row, groups) for row in tx.execute(query) if row.entries]


def spent(tx: Tx, holder_id: str, since: int) -> int:
    """Picodollars that a project or an organization has spent from `since` on."""
    query = select(
        func.coalesce(func.sum(LEDGER.c.amount_micro), 0).label("micro"),
        func.coalesce(func.sum(LEDGER.c.amount_rest_pico), 0).label("rest"),
    )
    column = LEDGER.c.project_id if holder_id.startswith(PROJECT) else LEDGER.c.organization_id
    row = tx.execute(query.where(column == holder_id, LEDGER.c.time >= since)).one()
    return _pico(row.micro, row.rest)


def trained_since(tx: Tx, organization_id: str, since: int) -> int:
    """Tokens that an organization has trained from `since` on."""
    query = select(func.coalesce(func.sum(LEDGER.c.trained_tokens), 0))
    where = (LEDGER.c.organization_id == organization_id, LEDGER.c.time >= since)
    return int(tx.execute(query.where(*where)).scalar_one())


_GROUPS: Final[dict[Grouping, ColumnElement[Any]]] = {
    "model": LEDGER.c.model,
    "kind": LEDGER.c.kind,
    # Whole days of UTC, as an integer: databases agree on division, not on dates.
    "day": cast(LEDGER.c.time // _DAY_S, Integer),
    "key": func.coalesce(LEDGER.c.key_id, ""),
}


def _row(entry: LedgerEntry, order: int) -> dict[str, Any]:
    values: dict[str, Any] = encode(entry)
    micro, rest = divmod(values.pop("amount_pico"), _PICO_A_MICRO)
    return values | {"order_key": order, "amount_micro": micro, "amount_rest_pico": rest}


def _entry(row: Row[Any]) -> LedgerEntry:
    names = set(LedgerEntry.__dataclass_fields__) - {"kind", "amount_pico"}
    return LedgerEntry(
        **{name: getattr(row, name) for name in names},
        kind=EntryKind(row.kind),
        amount_pico=_pico(row.amount_micro, row.amount_rest_pico),
    )


def _pico(micro: int, rest: int) -> int:
    return int(micro) * _PICO_A_MICRO + int(rest)


def _sum(row: Row[Any], groups: Sequence[Grouping]) -> UsageSum:
    values = row._mapping
    return UsageSum(
        group=tuple((group, _shown(group, values[f"group_{group}"])) for group in groups),
        entries=int(row.entries),
        amount_pico=_pico(row.micro, row.rest),
        **{name: int(values[name]) for name in _COUNTS},
    )


def _shown(group: Grouping, value: Any) -> str:
    return _date(int(value)) if group == "day" else str(value)


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
