"""The database: one engine, read and write transactions, migrations, and the check at start.

Store functions take the open transaction `Tx` as their first argument; only here is one begun.
A write transaction on SQLite begins IMMEDIATE, so it never fails half-way for want of the lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

Tx = Connection
"""An open transaction."""


class Database:
    """Where the platform's rows live."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> Database:
        """Opens `sqlite:///…`; nothing is created before `migrate`."""
        raise NotImplementedError

    def migrate(self) -> None:
        """Brings the schema up to date, safe against another process doing the same; refuses a
        damaged, read-only or newer database in plain words (BadSettings)."""
        raise NotImplementedError

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A write transaction: committed at the end, rolled back on any exception."""
        raise NotImplementedError
        yield

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A read transaction: one consistent view."""
        raise NotImplementedError
        yield

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()
