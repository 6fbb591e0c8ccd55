"""The order of lists, and pages of them by cursor.

`order_key` is the time of creation in microseconds, or one more than the newest where the clock
stands still or went back; so the order is that of creation, on any database, without a sequence.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, bindparam, func, or_, select

from afina.errors import InvalidRequest
from afina.store.database import Tx


@dataclass(frozen=True)
class Ordered:
    """Rows of a table whose order and ids are read off another one that the condition joins,
    because an index there finds them in that order."""

    rows: Table
    order: ColumnElement[Any]
    id: ColumnElement[Any]


def values_of(row: Row[Any], table: Table) -> dict[str, Any]:
    """A row of the whole `table` by its columns' names; ten times faster than asking for each, and
    three times faster than asking the row for all of its names."""
    return dict(zip(_names(table), row, strict=True))


@functools.cache
def _names(table: Table) -> tuple[str, ...]:
    return tuple(table.c.keys())


@functools.cache
def row_by_id(table: Table, *, owned: bool) -> Select[Any]:
    """The statement for a row by its `id`, and where `owned` by its `project` too; made once,
    because making it takes longer than asking."""
    query = select(table).where(table.c.id == bindparam("id"))
    return query.where(table.c.project_id == bindparam("project")) if owned else query


def next_order(tx: Tx, table: Table, now: float) -> int:
    """The order key of a row that is inserted in this write transaction."""
    newest: int | None = tx.execute(select(func.max(table.c.order_key))).scalar()
    return max(int(now * 1_000_000), 0 if newest is None else newest + 1)


def read_page(
    tx: Tx,
    table: Table | Ordered,
    where: ColumnElement[bool],
    *,
    after: str | None,
    limit: int,
    ascending: bool = False,
) -> tuple[list[Row[Any]], bool]:
    """Up to `limit` rows after the one whose id is `after`, and whether there are more. Raises
    InvalidRequest where `after` names none of them."""
    if not isinstance(table, Ordered):
        table = Ordered(table, table.c.order_key, table.c.id)
    order, id_ = table.order, table.id
    query = select(table.rows).where(where)
    if after is not None:
        asked = select(order.label("order_key"), id_.label("id")).where(where, id_ == after)
        mark = tx.execute(asked).one_or_none()
        if mark is None:
            raise InvalidRequest(
                f"There is no {after} in this list to go on after.",
                param="after",
                remedy="Start again without `after`.",
            )
        query = query.where(_beyond(order, id_, mark, ascending=ascending))
    by = (order.asc(), id_.asc()) if ascending else (order.desc(), id_.desc())
    rows = tx.execute(query.order_by(*by).limit(limit + 1)).all()
    return list(rows[:limit]), len(rows) > limit


def _beyond(
    order: ColumnElement[Any], id_: ColumnElement[Any], mark: Row[Any, Any], *, ascending: bool
) -> ColumnElement[bool]:
    # The first condition alone is what an index answers; an OR of two would be read row by row.
    if ascending:
        return and_(order >= mark.order_key, or_(order > mark.order_key, id_ > mark.id))
    return and_(order <= mark.order_key, or_(order < mark.order_key, id_ < mark.id))
