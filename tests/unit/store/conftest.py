"""A migrated database in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platforms import open_platform

from afina.service.platform import Platform
from afina.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'afina.db'}")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "data")
    yield opened
    opened.close()
