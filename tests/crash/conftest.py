"""A data directory with a tiny model, and a platform on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.live import BASE, LivePlatform
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / BASE
    make_tiny_model(folder, base_id=BASE)
    return folder


@pytest.fixture
def data(tmp_path: Path, tiny_folder: Path) -> Path:
    """A data directory that has a base model and nothing else."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder / "models" / BASE)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def live(data: Path) -> Iterator[LivePlatform]:
    platform = LivePlatform(data)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()
