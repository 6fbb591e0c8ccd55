"""The database: one engine, read and write transactions, migrations, and the check at start.

Store functions take the open transaction `Tx` as their first argument; only here is one begun.
A write transaction on SQLite begins IMMEDIATE, so it never fails half-way for want of the lock;
those of one process take turns before that, since SQLite itself lets them sleep and look again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DatabaseError, DataError, OperationalError

from afina.errors import BadSettings, Internal, InvalidRequest, Unavailable
from afina.store.dialects import (
    BUSY_TIMEOUT_S,
    WRITES,
    check_health,
    empty_log,
    hold_migrations,
    is_sqlite,
    make_engine,
    move_log,
    try_to_write,
)
from afina.store.migrations import HEAD, fresh

Tx = Connection
"""An open transaction."""

LOG_BYTES = 4 * 1024 * 1024
"""SQLite's log may grow so far before the API moves it into the file."""
_RESTORE = "Restore it from a backup, or move it away to start with an empty one."
_REACH = "See that the server runs, and that this user may make tables there."


class Database:
    """Where the platform's rows live."""

    def __init__(self, engine: Engine, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.engine = engine
        self._turn = threading.Lock() if is_sqlite(engine) else None
        self._busy_timeout_s = busy_timeout_s
        self._writer = engine.execution_options(**{WRITES: True})

    @classmethod
    def open(cls, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Database:
        """Opens `sqlite:///…` or `postgresql+psycopg://…`; nothing is made before `migrate`. A
        transaction waits for others up to `busy_timeout_s`, then it is Unavailable."""
        return cls(make_engine(url, busy_timeout_s), busy_timeout_s)

    @property
    def path(self) -> Path | None:
        """The database's file; None where it is not a file."""
        name = self.engine.url.database if is_sqlite(self.engine) else None
        return Path(name) if name and not name.startswith("file:") else None

    def migrate(self) -> None:
        """Brings the schema up to date, safe against another process doing the same; refuses a
        damaged, read-only or newer database in plain words (BadSettings)."""
        if self.path is None:
            self._check_and_upgrade()
            return
        try:
            # Nobody but its owner reads the database, whatever the umask says.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            lock = self.path.with_name(self.path.name + ".lock").open("a")
        except OSError as error:
            raise BadSettings(
                f"The database {self.path} cannot be opened for writing: {error.strerror}.",
                remedy="Make the data directory writable for this user.",
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._check_and_upgrade()

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A write transaction: committed at the end, rolled back on any exception."""
        with self._in_turn(), _plain_words(), self._writer.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A read transaction: one consistent view. It is rolled back: there is nothing to keep, and
        SQLite refuses to commit where a statement of the connection was not read to its end."""
        with _plain_words(), self.engine.connect() as tx:
            yield tx

    def tidy(self, beyond_bytes: int = LOG_BYTES) -> None:
        """Moves what SQLite's log holds into the file, once it is larger than `beyond_bytes`,
        beside whoever reads and writes: else a commit has to do it, and its caller waits. Nothing
        elsewhere."""
        path = self.path
        if path is None:
            return
        try:
            if path.with_name(path.name + "-wal").stat().st_size <= beyond_bytes:
                return
        except FileNotFoundError:
            return
        with _plain_words(), self.engine.connect() as connection:
            move_log(connection)

    def forget(self) -> bool:
        """Empties SQLite's log, which holds the pages as they were before rows were deleted until
        it is written over; False where somebody was reading from it all the while. True
        elsewhere: what PostgreSQL's log keeps is for who runs it to say."""
        if self.path is None:
            return True
        with _plain_words(), self.engine.connect() as connection:
            return empty_log(connection)

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def schema_revision(self) -> str | None:
        """The revision that the database's schema has; None where there is none yet."""
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: Any = connection.execute(
                text("SELECT version_num FROM alembic_version")
            ).scalar()
            return None if found is None else str(found)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise _busy()
        try:
            yield
        finally:
            self._turn.release()

    def _check_and_upgrade(self) -> None:
        where = self.path or self.engine.url.render_as_string(hide_password=True)
        try:
            fault = check_health(self.engine)
            revision = None if fault else self.schema_revision()
            if fault is None and revision != HEAD:
                self._upgrade(revision)
            if fault is None:
                with self._writer.begin() as tx:
                    try_to_write(tx)
        except DatabaseError as error:
            reason = _first_line(error)
            self.close()
            remedy = _RESTORE if self.path is not None else _REACH
            raise BadSettings(
                f"The database {where} cannot be used: {reason}.", remedy=remedy
            ) from None
        if fault is not None:
            self.close()
            raise BadSettings(f"The database {where} is damaged: {fault}.", remedy=_RESTORE)

    def _upgrade(self, revision: str | None) -> None:
        if revision is None and self._make_fresh():
            return
        # Alembic is loaded only when there is something to migrate: it costs a start 100 ms.
        from afina.store.migrations.upgrade import known_revisions, upgrade

        if revision is not None and revision not in known_revisions():
            self.close()
            raise BadSettings(
                f"The database is of a newer afina (its schema {revision}, this one's {HEAD}).",
                remedy="Install that version again, or use another data directory.",
            )
        with self._writer.begin() as tx:
            hold_migrations(tx)
            upgrade(tx)

    def _make_fresh(self) -> bool:
        with self._writer.begin() as tx:
            hold_migrations(tx)
            # Another process may have made them while this one waited for the lock.
            empty = fresh.is_empty(tx)
            if empty:
                fresh.make(tx)
            return empty


@contextmanager
def _plain_words() -> Iterator[None]:
    """Turns what can happen to any database into errors of the tree."""
    try:
        yield
    except OperationalError as error:
        reason = _first_line(error)
        if isinstance(error.orig, sqlite3.Error):
            _raise_sqlite(reason, error)
        raise Unavailable(
            "The database cannot be reached or is busy.",
            retry_after_s=1.0,
            remedy="Try again in a moment; the server's log has the reason.",
        ) from error
    except (DataError, UnicodeEncodeError, OverflowError):
        raise _unfit() from None


def _raise_sqlite(reason: str, error: OperationalError) -> NoReturn:
    if "locked" in reason or "busy" in reason:
        raise _busy() from error
    if "full" in reason:
        raise Unavailable(
            "The disk is full.", remedy="Free some space in the data directory."
        ) from error
    raise Internal(f"The database refused: {reason}.") from error


def _busy() -> Unavailable:
    return Unavailable("The database is busy.", retry_after_s=1.0, remedy="Try again in a moment.")


def _unfit() -> InvalidRequest:
    # Half a surrogate pair, a zero character or a number beyond 64 bits: JSON can say it, no table
    # can hold it.
    return InvalidRequest(
        "The request holds text that is not Unicode, or a number beyond 64 bits.",
        code="invalid_value",
    )


def _first_line(error: DatabaseError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
