"""The order of lists, and pages of them by cursor.

`order_key` is the time of creation in microseconds, or one more than the newest where the clock
stands still or went back; so the order is that of creation, on any database, without a sequence.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, func, or_, select

from afina.errors import InvalidRequest
from afina.store.database import Tx


def next_order(tx: Tx, table: Table, now: float) -> int:
    """The order key of a row that is inserted in this write transaction."""
    newest: int | None = tx.execute(select(func.max(table.c.order_key))).scalar()
    return max(int(now * 1_000_000), 0 if newest is None else newest + 1)


def read_page(
    tx: Tx,
    table: Table,
    where: ColumnElement[bool],
    *,
    after: str | None,
    limit: int,
    ascending: bool = False,
) -> tuple[list[Row[Any]], bool]:
    """Up to `limit` rows after the one whose id is `after`, and whether there are more. Raises
    InvalidRequest where `after` names none of them."""
    order, id_ = table.c.order_key, table.c.id
    query = select(table).where(where)
    if after is not None:
        mark = tx.execute(select(order, id_).where(where, id_ == after)).one_or_none()
        if mark is None:
            raise InvalidRequest(
                f"There is no {after} in this list to go on after.",
                param="after",
                remedy="Start again without `after`.",
            )
        query = query.where(_beyond(order, id_, mark, ascending=ascending))
    keys = (order.asc(), id_.asc()) if ascending else (order.desc(), id_.desc())
    rows = list(tx.execute(query.order_by(*keys).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def _beyond(
    order: ColumnElement[Any], id_: ColumnElement[Any], mark: Row[Any, Any], *, ascending: bool
) -> ColumnElement[bool]:
    if ascending:
        return or_(order > mark.order_key, and_(order == mark.order_key, id_ > mark.id))
    return or_(order < mark.order_key, and_(order == mark.order_key, id_ < mark.id))
