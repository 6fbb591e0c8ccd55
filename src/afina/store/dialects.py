"""The only place that knows which database it is: connection settings and what SQL words differ.

SQLite is the default; PostgreSQL takes the same tables and functions. What is not here is portable
SQL that SQLAlchemy spells for both.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from afina.domain.clock import SYSTEM_CLOCK
from afina.errors import BadSettings

BUSY_TIMEOUT_S: Final = 15.0
WRITES: Final = "afina_writes"
"""The execution option that marks a connection whose transactions write."""
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
    # In pages of 4 kB. The API moves the log long before that, beside its requests
    # (Database.tidy); where none runs, a commit does.
    "PRAGMA wal_autocheckpoint=8000",
)
HEALTH_S: Final = 1.0
_HEALTH_STEPS: Final = 10_000
"""The engine of SQLite looks at the clock each time it has taken so many steps."""
_ROWS_A_STATEMENT: Final = 200


def make_engine(url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine with the settings that the platform relies on."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _postgres_engine(parsed, busy_timeout_s)
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
    """What is wrong with the database's file, in the database's own words; None if it is sound,
    or if it is so large that nothing was found within `HEALTH_S`: a start must not grow with it."""
    if not is_sqlite(engine):
        return None
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        end = SYSTEM_CLOCK.monotonic() + HEALTH_S
        raw.set_progress_handler(lambda: SYSTEM_CLOCK.monotonic() > end, _HEALTH_STEPS)
        try:
            found = str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())
        except OperationalError as error:
            if "interrupted" not in str(error.orig):
                raise
            return None
        finally:
            raw.set_progress_handler(None, 0)
    return None if found == "ok" else found


def try_to_write(tx: Connection) -> None:
    """Writes what is there already. A read-only SQLite file begins any transaction without a word
    and refuses only here."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("PRAGMA user_version = 0")


def move_log(connection: Connection) -> None:
    """Writes SQLite's log into its file, as far as nobody still reads from what was before."""
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()


def empty_log(connection: Connection) -> bool:
    """Writes all of SQLite's log into its file and leaves nothing in it; False where somebody read
    from it for longer than the engine waits."""
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
    return not busy


def hold_migrations(tx: Connection) -> None:
    """Until the end of the transaction nobody else migrates: on PostgreSQL two processes may start
    at once; SQLite's are kept apart by a lock file."""
    lock_name(tx, "migrations")


def _postgres_engine(url: URL, busy_timeout_s: float) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise BadSettings(
            "The database is PostgreSQL, and its driver is not installed.",
            param="database",
            remedy="Install it with `pip install afina[postgres]`.",
        ) from None
    wait_ms = int(busy_timeout_s * 1000)
    return create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        json_deserializer=read_json,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": max(2, int(busy_timeout_s)),
            "options": f"-c lock_timeout={wait_ms} -c timezone=UTC",
        },
    )


def read_json(text: str | bytes) -> Any:
    """A column of JSON as values: what `json.loads` gives, sooner. A job has four such columns,
    and a page a hundred jobs. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)  # numbers that are none, and halves of a surrogate pair


def _sqlite_engine(url: URL, busy_timeout_s: float) -> Engine:
    # As many as there are threads that answer: what is made beyond the pool is closed again, and
    # opening one costs a request more than its query.
    engine = create_engine(
        url,
        pool_size=48,
        max_overflow=16,
        json_deserializer=read_json,
        connect_args={"timeout": busy_timeout_s},
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
