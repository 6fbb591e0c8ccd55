"""A platform, its first caller, and a stranger of another project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platforms import first_caller, open_platform, other_caller

from afina.domain.accounts import Caller
from afina.service.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def caller(platform: Platform) -> Caller:
    return first_caller(platform)


@pytest.fixture
def stranger(platform: Platform) -> Caller:
    return other_caller(platform)
