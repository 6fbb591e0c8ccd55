"""The schema is what the tables say, whoever starts first; a bad database is refused in words."""

from __future__ import annotations

import itertools
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, select, text
from tests.postgres import empty_database as unmade_for
from tests.postgres import on_postgres

from afina.errors import BadSettings, Unavailable
from afina.settings import Settings
from afina.store.database import Database
from afina.store.migrations import HEAD
from afina.store.migrations.upgrade import configuration, upgrade
from afina.store.tables import METADATA, OUTBOX


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'afina.db'}"


def empty_database(folder: Path) -> Database:
    settings = Settings(data=folder, database=unmade_for(folder) if on_postgres() else None)
    return Database.open(settings.database_url)


REVISIONS = tuple(
    script.revision
    for script in reversed([*ScriptDirectory.from_config(configuration()).walk_revisions()])
)


def differences(database: Database) -> list[object]:
    with database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return [*compare_metadata(context, METADATA)]


@pytest.mark.long
@pytest.mark.parametrize("revision", REVISIONS)
def test_every_older_schema_migrates_to_the_tables_as_they_are_written(
    tmp_path: Path, revision: str
) -> None:
    opened = empty_database(tmp_path)
    with opened.write() as tx:
        upgrade(tx, revision)
    assert opened.schema_revision() == revision
    opened.migrate()
    assert (opened.schema_revision(), differences(opened)) == (HEAD, [])
    opened.close()


def test_an_empty_database_gets_the_tables_as_they_are_written(database: Database) -> None:
    assert (database.schema_revision(), differences(database)) == (HEAD, [])


@pytest.mark.long
def test_one_step_gives_the_names_that_all_migrations_give(tmp_path: Path) -> None:
    found = []
    for name, make in (("steps", upgrade), ("fresh", Database.migrate)):
        (tmp_path / name).mkdir()
        opened = empty_database(tmp_path / name)
        if make is upgrade:
            with opened.write() as tx:
                upgrade(tx)
        else:
            opened.migrate()
        found.append(names(opened))
        opened.close()
    assert found[0] == found[1]


def names(database: Database) -> dict[str, object]:
    """Of each table its columns in any order, and the names of what stands on them."""
    seen = inspect(database.engine)
    return {
        table: {
            "columns": sorted(str((c["name"], c["type"], c["nullable"], c["default"])) for c in seen.get_columns(table)),
            "indexes": sorted(str((i["name"], i["column_names"], i["unique"])) for i in seen.get_indexes(table)),
            "unique": sorted(str((u["name"], u["column_names"])) for u in seen.get_unique_constraints(table)),
            "foreign": sorted(str((f["name"], f["constrained_columns"], f["referred_table"], f["options"])) for f in seen.get_foreign_keys(table)),
            "key": str(seen.get_pk_constraint(table)),
        }
        for table in seen.get_table_names()
    }  # fmt: skip


def test_the_named_head_is_the_last_migration() -> None:
    assert ScriptDirectory.from_config(configuration()).get_current_head() == HEAD


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.write() as tx:
        tx.execute(
            text("INSERT INTO organizations (id, slug, name, created_at) VALUES ('o', 's', 'n', 1)")
        )
    database.migrate()
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM organizations")).scalar() == 1


@pytest.mark.sqlite
@pytest.mark.long
def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    program = (
        "import sys; from afina.store.database import Database\n"
        "sys.stdin.readline()\n"
        "db = Database.open(sys.argv[1]); db.migrate(); print(db.schema_revision()); db.close()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, url(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, HEAD), err


@pytest.mark.sqlite
def test_a_migration_that_is_cut_off_leaves_the_old_schema(tmp_path: Path) -> None:
    for number in (1, 2, 7, 20, 33):
        opened = Database.open(url(tmp_path))
        made = itertools.count(1)

        def cut_off(*args: object, number: int = number, made: Iterator[int] = made) -> None:
            if str(args[2]).lstrip().startswith("CREATE") and next(made) == number:
                raise KeyboardInterrupt

        event.listen(opened.engine, "before_cursor_execute", cut_off)
        with pytest.raises(KeyboardInterrupt):
            opened.migrate()
        opened.close()
        with sqlite3.connect(tmp_path / "afina.db") as raw:
            assert raw.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        raw.close()
    opened = Database.open(url(tmp_path))
    opened.migrate()
    assert opened.schema_revision() == HEAD
    opened.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "afina.db").write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(BadSettings, match="cannot be used") as caught:
        Database.open(url(tmp_path)).migrate()
    assert caught.value.remedy is not None
    assert "backup" in caught.value.remedy


def test_a_start_does_not_grow_with_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too large to be looked at within the time for it is taken for sound."""
    opened = Database.open(url(tmp_path))
    opened.migrate()
    monkeypatch.setattr("afina.store.dialects.HEALTH_S", 0.0)
    monkeypatch.setattr("afina.store.dialects._HEALTH_STEPS", 1)
    opened.migrate()
    opened.close()


@pytest.mark.sqlite
def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    opened = Database.open(url(tmp_path))
    opened.migrate()
    with opened.write() as tx:
        rows = [
            {"id": f"out_{n}", "order_key": n, "kind": "k" * 30, "payload": {"a": "x" * 200}}
            for n in range(300)
        ]
        common = {"created_at": 1, "available_at": 0.0, "attempts": 0}
        tx.execute(OUTBOX.insert(), [row | common for row in rows])
    opened.close()
    path = tmp_path / "afina.db"
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xde\xad" * (size // 8))
    with pytest.raises(BadSettings, match=r"damaged|cannot be used"):
        Database.open(url(tmp_path)).migrate()


def test_a_database_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    opened = Database.open(url(tmp_path))
    opened.migrate()
    opened.close()
    read_only = f"sqlite:///file:{tmp_path / 'afina.db'}?mode=ro&uri=true"
    with pytest.raises(BadSettings, match="readonly"):
        Database.open(read_only).migrate()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadSettings, match="newer afina"):
        database.migrate()


def test_a_server_that_does_not_answer_is_said_without_its_password() -> None:
    settings = Settings(database="postgresql://afina:secret@127.0.0.1:1/afina")
    opened = Database.open(settings.database_url, busy_timeout_s=2)
    with pytest.raises(BadSettings, match="cannot be used") as refused:
        opened.migrate()
    assert "secret" not in refused.value.one_line()
    assert "server runs" in refused.value.one_line()
    assert "secret" not in repr(settings)


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(BadSettings, match="cannot be opened"):
        Database.open(url(tmp_path / "data")).migrate()


@pytest.mark.sqlite
def test_the_database_is_for_its_owner_alone(database: Database) -> None:
    assert database.path is not None
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_what_fails_half_way_is_not_there(database: Database) -> None:
    insert = "INSERT INTO organizations (id, slug, name, created_at) VALUES ('o', 's', 'n', 1)"

    def half_way() -> None:
        with database.write() as tx:
            tx.execute(text(insert))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM organizations")).scalar() == 0


def test_a_database_locked_for_too_long_is_unavailable_not_broken(tmp_path: Path) -> None:
    opened = Database.open(url(tmp_path), busy_timeout_s=0.05)
    opened.migrate()
    other = sqlite3.connect(tmp_path / "afina.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught, opened.write():
        pass
    assert caught.value.retry_after_s == 1.0
    with opened.read() as tx:
        assert tx.execute(select(OUTBOX)).all() == []
    other.execute("ROLLBACK")
    other.close()
    with opened.write():
        pass
    opened.close()


@pytest.mark.sqlite
def test_a_full_disk_is_said_in_plain_words_and_leaves_nothing(database: Database) -> None:
    def fill() -> None:
        with database.write() as tx:
            tx.execute(text("PRAGMA max_page_count = 1"))
            try:
                big = "x" * 100_000
                tx.execute(
                    text("INSERT INTO organizations VALUES ('o', 's', :name, 1)"), {"name": big}
                )
            finally:
                tx.execute(text("PRAGMA max_page_count = 1000000"))

    with pytest.raises(Unavailable, match="disk is full"):
        fill()
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM organizations")).scalar() == 0


@pytest.mark.sqlite
def test_money_and_jobs_are_synced_to_the_disk(database: Database) -> None:
    with database.read() as tx:
        found = {
            name: tx.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 15_000,
    }
