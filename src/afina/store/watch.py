"""Rows of the abuse watch: the tally by hour and category, and what was done about keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from afina.domain.watch import HOUR_S, Watched, WatchState, WatchTally
from afina.store.database import Tx
from afina.store.dialects import insert_new
from afina.store.gate_tables import WATCH, WATCH_STATES


def add_counts(tx: Tx, who: Watched, now: int, counts: Mapping[str, int]) -> None:
    """Adds to the tally of this hour."""
    hour = now // HOUR_S
    for category, count in counts.items():
        place = {
            "project_id": who.project_id,
            "key_id": who.key_id,
            "model": who.model,
            "hour": hour,
            "category": category,
        }
        insert_new(tx, WATCH, [{**place, "count": 0}])
        where = [WATCH.c[name] == value for name, value in place.items()]
        tx.execute(update(WATCH).where(*where).values(count=WATCH.c.count + count))


def tally(tx: Tx, who: Watched, since_hour: int) -> WatchTally:
    """What was counted for a key and a model from an hour on."""
    query = (
        select(WATCH.c.category, func.sum(WATCH.c.count).label("n"))
        .where(
            WATCH.c.project_id == who.project_id,
            WATCH.c.key_id == who.key_id,
            WATCH.c.model == who.model,
            WATCH.c.hour >= since_hour,
        )
        .group_by(WATCH.c.category)
    )
    counts = {row.category: int(row.n) for row in tx.execute(query)}
    return WatchTally(who.project_id, who.key_id, who.model, counts)


def tallies(tx: Tx, project_id: str, since_hour: int) -> list[WatchTally]:
    """Every tally of a project from an hour on, with what was done; by key and model."""
    query = (
        select(WATCH.c.key_id, WATCH.c.model, WATCH.c.category, func.sum(WATCH.c.count).label("n"))
        .where(WATCH.c.project_id == project_id, WATCH.c.hour >= since_hour)
        .group_by(WATCH.c.key_id, WATCH.c.model, WATCH.c.category)
    )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in tx.execute(query):
        counts.setdefault((row.key_id, row.model), {})[row.category] = int(row.n)
    known = {(state.key_id, state.model): state for state in states(tx, project_id)}
    return [
        WatchTally(project_id, *place, counts.get(place, {}), known.get(place))
        for place in sorted({*counts, *known})
    ]


def states(tx: Tx, project_id: str, key_id: str | None = None) -> list[WatchState]:
    """What was done about the keys of a project, or about one of them."""
    query = select(WATCH_STATES).where(WATCH_STATES.c.project_id == project_id)
    if key_id is not None:
        query = query.where(WATCH_STATES.c.key_id == key_id)
    return [_state(row) for row in tx.execute(query)]


def put_state(tx: Tx, state: WatchState) -> None:
    """Writes what was done about a key and a model."""
    tx.execute(
        delete(WATCH_STATES).where(
            WATCH_STATES.c.project_id == state.project_id,
            WATCH_STATES.c.key_id == state.key_id,
            WATCH_STATES.c.model == state.model,
        )
    )
    values = {name: getattr(state, name) for name in WatchState.__dataclass_fields__}
    tx.execute(insert(WATCH_STATES).values(values))


def forget_before(tx: Tx, hour: int) -> int:
    """Takes away what was counted before an hour; says how many rows."""
    return int(tx.execute(delete(WATCH).where(WATCH.c.hour < hour)).rowcount)


def _state(row: Row[Any]) -> WatchState:
    return WatchState(**{name: getattr(row, name) for name in WatchState.__dataclass_fields__})
