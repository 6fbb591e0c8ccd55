"""Rows of kept answers: stored chat completions and responses.

An answer whose time is over is not there any more, whether it was swept yet or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update

from afina.domain.accounts import Caller
from afina.domain.pages import Page
from afina.store.answer_tables import COMPLETION_LABELS, RESPONSES, STORED_COMPLETIONS
from afina.store.database import Tx
from afina.store.ordering import next_order, read_page


@dataclass(frozen=True)
class StoredCompletion:
    """A chat completion that was kept: what was asked and what was answered."""

    id: str
    created_at: int
    expires_at: int
    model: str
    metadata: Mapping[str, str]
    request: Mapping[str, Any]
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class StoredResponse:
    """A response that was kept, with the items that were put in."""

    id: str
    created_at: int
    expires_at: int
    model: str
    previous_id: str | None
    status: str
    items: tuple[Mapping[str, Any], ...]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class CompletionQuery:
    """Which stored completions; every pair of `metadata` must be theirs."""

    model: str | None = None
    metadata: Mapping[str, str] | None = None
    after: str | None = None
    limit: int = 20
    ascending: bool = True


def insert_completion(tx: Tx, kept: StoredCompletion, caller: Caller, now: float) -> None:
    """Adds a completion of the caller's."""
    values = {
        name: getattr(kept, name)
        for name in ("id", "created_at", "expires_at", "model", "metadata", "request", "answer")
    }
    order = next_order(tx, STORED_COMPLETIONS, now)
    tx.execute(insert(STORED_COMPLETIONS).values(values | _owner(caller) | {"order_key": order}))
    _label(tx, kept.id, kept.metadata)


def get_completion(tx: Tx, id: str, project_id: str, now: int) -> StoredCompletion | None:
    """The completion, if it is the project's."""
    table = STORED_COMPLETIONS
    query = select(table).where(table.c.id == id, _alive(table, project_id, now))
    row = tx.execute(query).one_or_none()
    return None if row is None else _completion(row)


def list_completions(
    tx: Tx, project_id: str, query: CompletionQuery, now: int
) -> Page[StoredCompletion]:
    """A page of the project's completions."""
    rows, more = read_page(
        tx,
        STORED_COMPLETIONS,
        _wanted(project_id, query, now),
        after=query.after,
        limit=query.limit,
        ascending=query.ascending,
    )
    return Page(tuple(_completion(row) for row in rows), more)


def each_completion(
    tx: Tx, project_id: str, query: CompletionQuery, now: int
) -> Iterator[StoredCompletion]:
    """All completions that the query wants, oldest first; its page is not looked at."""
    table = STORED_COMPLETIONS
    rows = tx.execute(
        select(table)
        .where(_wanted(project_id, query, now))
        .order_by(table.c.order_key, table.c.id)
        .execution_options(yield_per=100)
    )
    for row in rows:
        yield _completion(row)


def completion_models(tx: Tx, project_id: str, now: int) -> dict[str, int]:
    """How many completions of the project are kept, by model, most first."""
    table = STORED_COMPLETIONS
    many = func.count().label("many")
    query = select(table.c.model, many).where(_alive(table, project_id, now))
    rows = tx.execute(query.group_by(table.c.model).order_by(many.desc(), table.c.model))
    return {row.model: row.many for row in rows}


def completion_labels(tx: Tx, project_id: str, now: int, most: int) -> list[tuple[str, str]]:
    """The pairs of metadata that most of the project's completions have, at most `most`."""
    table, labels = STORED_COMPLETIONS, COMPLETION_LABELS.c
    query = (
        select(labels.key, labels.value)
        .join(table, table.c.id == labels.completion_id)
        .where(_alive(table, project_id, now))
        .group_by(labels.key, labels.value)
        .order_by(func.count().desc(), labels.key, labels.value)
        .limit(most)
    )
    return [(row.key, row.value) for row in tx.execute(query)]


def label_completion(tx: Tx, kept: StoredCompletion, metadata: Mapping[str, str]) -> None:
    """Gives a completion other metadata."""
    table = STORED_COMPLETIONS
    changed = update(table).where(table.c.id == kept.id)
    tx.execute(changed.values(metadata=dict(metadata)))
    tx.execute(delete(COMPLETION_LABELS).where(COMPLETION_LABELS.c.completion_id == kept.id))
    _label(tx, kept.id, metadata)


def delete_completion(tx: Tx, id: str) -> None:
    """Removes the row; its labels go with it."""
    tx.execute(delete(STORED_COMPLETIONS).where(STORED_COMPLETIONS.c.id == id))


def insert_response(tx: Tx, kept: StoredResponse, caller: Caller, now: float) -> None:
    """Adds a response of the caller's."""
    values = {name: getattr(kept, name) for name in StoredResponse.__dataclass_fields__}
    values |= {"items": list(kept.items), "order_key": next_order(tx, RESPONSES, now)}
    tx.execute(insert(RESPONSES).values(values | _owner(caller)))


def get_response(tx: Tx, id: str, project_id: str, now: int) -> StoredResponse | None:
    """The response, if it is the project's."""
    query = select(RESPONSES).where(RESPONSES.c.id == id, _alive(RESPONSES, project_id, now))
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    values = {name: getattr(row, name) for name in StoredResponse.__dataclass_fields__}
    found = StoredResponse(**values)
    return replace(found, items=tuple(found.items))


def delete_response(tx: Tx, id: str) -> None:
    """Removes the row."""
    tx.execute(delete(RESPONSES).where(RESPONSES.c.id == id))


def delete_expired(tx: Tx, now: int) -> int:
    """Removes every kept answer whose time is over; how many."""
    gone = 0
    for table in (STORED_COMPLETIONS, RESPONSES):
        gone += tx.execute(delete(table).where(table.c.expires_at <= now)).rowcount
    return gone


def _wanted(project_id: str, query: CompletionQuery, now: int) -> ColumnElement[bool]:
    table, labels = STORED_COMPLETIONS, COMPLETION_LABELS.c
    where = _alive(table, project_id, now)
    if query.model is not None:
        where = and_(where, table.c.model == query.model)
    for key, value in (query.metadata or {}).items():
        having = select(labels.completion_id).where(labels.key == key, labels.value == value)
        where = and_(where, table.c.id.in_(having))
    return where


def _alive(table: Any, project_id: str, now: int) -> ColumnElement[bool]:
    return and_(table.c.project_id == project_id, table.c.expires_at > now)


def _owner(caller: Caller) -> dict[str, str]:
    return {"organization_id": caller.organization_id, "project_id": caller.project_id}


def _label(tx: Tx, id: str, metadata: Mapping[str, str]) -> None:
    if metadata:
        pairs = [{"completion_id": id, "key": k, "value": v} for k, v in metadata.items()]
        tx.execute(insert(COMPLETION_LABELS), pairs)


def _completion(row: Row[Any]) -> StoredCompletion:
    return StoredCompletion(
        **{name: getattr(row, name) for name in StoredCompletion.__dataclass_fields__}
    )
