"""A migrated database in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platforms import open_platform
from tests.postgres import database_for, on_postgres

from afina.service.platform import Platform
from afina.settings import Settings
from afina.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    settings = Settings(data=tmp_path, database=database_for(tmp_path) if on_postgres() else None)
    opened = Database.open(settings.database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "data")
    yield opened
    opened.close()
