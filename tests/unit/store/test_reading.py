"""Lists are read off an index, and writers of one process take turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Column, MetaData, event, select, text
from tests.platforms import first_caller, start_job, upload
from tests.postgres import empty_database as unmade_for
from tests.postgres import on_postgres

from afina.errors import Unavailable
from afina.service import batches, files, jobs, models
from afina.service.files import FileQuery
from afina.service.platform import Caller, Platform
from afina.settings import Settings
from afina.store.database import LOG_BYTES, Database
from afina.store.migrations.upgrade import upgrade
from afina.store.tables import JOB_LABELS

LISTS: dict[str, Callable[[Platform, Caller, str], Any]] = {
    "jobs": lambda p, c, _: jobs.list_jobs(p, c),
    "jobs after one": lambda p, c, job: jobs.list_jobs(p, c, job),
    "jobs with a pair": lambda p, c, _: jobs.list_jobs(p, c, metadata={"a": "1"}),
    "jobs with two": lambda p, c, _: jobs.list_jobs(p, c, metadata={"a": "1", "b": "2"}),
    "jobs with a pair after one": lambda p, c, j: jobs.list_jobs(p, c, j, metadata={"a": "1"}),
    "events": lambda p, c, job: jobs.list_events(p, c, job),
    "checkpoints": lambda p, c, job: jobs.list_checkpoints(p, c, job),
    "files": lambda p, c, _: files.list_files(p, c, FileQuery(limit=5)),
    "models": lambda p, c, _: models.list_models(p, c),
    "batches": lambda p, c, _: batches.list_batches(p, c),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_no_table_from_end_to_end(platform: Platform, name: str) -> None:
    caller = first_caller(platform)
    job = start_job(
        platform, caller, training_file=upload(platform, caller).id, metadata={"a": "1", "b": "2"}
    )
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, values))

    event.listen(platform.database.engine, "before_cursor_execute", note)
    LISTS[name](platform, caller, job.id)
    event.remove(platform.database.engine, "before_cursor_execute", note)
    assert asked
    with platform.database.read() as tx:
        for statement, values in asked:
            plan = [
                str(r[3]) for r in tx.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values)
            ]
            assert not [step for step in plan if step.startswith("SCAN")], (statement, plan)


@pytest.mark.sqlite
def test_writers_of_one_process_take_turns_and_none_waits_beyond_its_patience(
    tmp_path: Path,
) -> None:
    opened = Database.open(f"sqlite:///{tmp_path / 'afina.db'}", busy_timeout_s=0.05)
    opened.migrate()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with opened.write():
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    with pytest.raises(Unavailable, match="busy"), opened.write():
        pass
    leave.set()
    holder.join()
    with opened.write():
        pass
    opened.close()


@pytest.mark.sqlite
def test_the_log_is_moved_into_the_file_once_it_is_large(tmp_path: Path) -> None:
    opened = Database.open(f"sqlite:///{tmp_path / 'afina.db'}")
    opened.migrate()
    file, log = tmp_path / "afina.db", tmp_path / "afina.db-wal"
    opened.tidy(0)
    before = file.stat().st_size
    with opened.write() as tx:
        row = "INSERT INTO organizations VALUES ('o', 's', :name, 1)"
        tx.execute(text(row), {"name": "x" * 2 * LOG_BYTES})
    assert (file.stat().st_size, log.stat().st_size > LOG_BYTES) == (before, True)
    opened.tidy()
    assert file.stat().st_size > before + LOG_BYTES
    with opened.read() as tx:
        assert tx.execute(text("SELECT length(name) FROM organizations")).scalar() == 2 * LOG_BYTES
    opened.close()


@pytest.mark.long
def test_labels_of_older_schemas_are_found_in_their_projects_lists(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, database=unmade_for(tmp_path) if on_postgres() else None)
    opened = Database.open(settings.database_url)
    with opened.write() as tx:
        upgrade(tx, "0008")
        tx.execute(text("INSERT INTO organizations VALUES ('o', 's', 'n', 1)"))
        tx.execute(text("INSERT INTO projects VALUES ('p', 'o', 'n', 1, NULL)"))
        old = MetaData()
        old.reflect(tx, only=["jobs", "job_labels"])
        row = {c.name: _filler(c) for c in old.tables["jobs"].c if not c.nullable}
        row |= {"organization_id": "o", "project_id": "p", "status": "succeeded", "order_key": 7}
        tx.execute(old.tables["jobs"].insert().values(row | {"id": "j"}))
        labels = [{"job_id": "j", "key": "team", "value": "a"}]
        tx.execute(old.tables["job_labels"].insert(), labels)
    opened.migrate()
    with opened.read() as tx:
        found = tx.execute(select(JOB_LABELS.c.project_id, JOB_LABELS.c.order_key)).all()
        assert [tuple(row) for row in found] == [("p", 7)]
    opened.close()


def _filler(column: Column[Any]) -> Any:
    return [] if isinstance(column.type, JSON) else column.type.python_type(1)


@pytest.mark.sqlite
def test_a_read_ends_well_where_a_statement_was_not_read_to_its_end(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'afina.db'}")
    database.migrate()
    with database.read() as tx:
        unread = tx.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
        assert tx.execute(select(JOB_LABELS)).all() == []
    unread.close()
    database.close()


@pytest.mark.sqlite
def test_nothing_is_kept_of_what_a_read_would_write(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'afina.db'}")
    database.migrate()
    with database.read() as tx:
        tx.exec_driver_sql("CREATE TABLE stray (x)")
    with database.read() as tx:
        known = tx.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'stray'")
        assert known.scalar_one() == 0
    database.close()
