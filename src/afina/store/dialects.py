"""The only place that knows which database it is: connection settings and what SQL words differ.

SQLite is the default; PostgreSQL takes the same tables and functions. What is not here is portable
SQL that SQLAlchemy spells for both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_S: Final = 15.0
WRITES: Final = "afina_writes"
"""The execution option that marks a connection whose transactions write."""
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
)
_ROWS_A_STATEMENT: Final = 200


def make_engine(url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine with the settings that the platform relies on."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_size=16, max_overflow=32)
    return _sqlite_engine(parsed, busy_timeout_s)


def is_sqlite(engine: Engine) -> bool:
    """Whether the database is one file on this machine."""
    return engine.dialect.name == "sqlite"


def insert_new(tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Inserts the rows that break no unique constraint; says how many that were."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    key = next(iter(table.primary_key.columns))
    added = 0
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        values = [dict(row) for row in rows[start : start + _ROWS_A_STATEMENT]]
        # The rows that come back are counted: drivers disagree on what they call affected.
        new = insert(table).values(values).on_conflict_do_nothing().returning(key)
        added += len(tx.execute(new).all())
    return added


def lock_name(tx: Connection, name: str) -> None:
    """Holds off other write transactions that lock the same name. SQLite has one writer at a time,
    so there is nothing to do."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def check_health(engine: Engine) -> str | None:
    """What is wrong with the database's file, in the database's own words; None if it is sound."""
    if not is_sqlite(engine):
        return None
    with engine.connect() as connection:
        found = str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())
    return None if found == "ok" else found


def try_to_write(tx: Connection) -> None:
    """Writes what is there already. A read-only SQLite file begins any transaction without a word
    and refuses only here."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("PRAGMA user_version = 0")


def _sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    engine = create_engine(
        url, pool_size=16, max_overflow=48, connect_args={"timeout": busy_timeout_s}
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by itself: `begin` below says how.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        # A read that turns into a write fails at once if another wrote in between, whatever the
        # busy timeout says; so writers take the lock when they begin.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
