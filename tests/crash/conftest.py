"""Data directories with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.live import BASE
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / BASE
    make_tiny_model(folder, base_id=BASE)
    return folder


@pytest.fixture
def data(tmp_path: Path, tiny_folder: Path) -> Path:
    """A data directory that has a base model and nothing else."""
    return data_directory(tmp_path, tiny_folder)


def data_directory(parent: Path, model: Path) -> Path:
    """A new one with a copy of the model."""
    folder = parent / "data"
    shutil.copytree(model, folder / "models" / BASE)
    folder.chmod(0o700)
    return folder
