"""Fixtures that several rings share: the starter model's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def starter_dir() -> Path:
    """The starter model's folder, which `make starter` fetches."""
    folder = Path(os.environ.get("AFINA_TEST_STARTER", STARTER))
    if not (folder / "afina.json").exists():
        pytest.fail(f"{folder} is not there: run `make starter`")
    return folder
