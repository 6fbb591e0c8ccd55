"""Fixtures that several rings share: the starter model's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The gate is deterministic: the same examples, the same random numbers and the same shuffled order
# every time. AFINA_TEST_EXPLORE=1 looks for new ones; `--randomly-seed=N` repeats a run.
EXPLORE = bool(os.environ.get("AFINA_TEST_EXPLORE"))
SEED = 20_260_101
settings.register_profile("gate", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("explore" if EXPLORE else "gate")

STARTER = Path(__file__).parent.parent / ".afina" / "models" / "smollm2-135m-instruct"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-randomly draws a seed of its own."""
    if not EXPLORE and getattr(config.option, "randomly_seed", None) == "default":
        config.option.randomly_seed = SEED


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seed_torch(item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _seed_torch(item.config)


def _seed_torch(config: pytest.Config) -> None:
    """pytest-randomly seeds `random` and numpy for each test, not torch: without this a test would
    draw what those that ran before it in the same process left."""
    torch = sys.modules.get("torch")
    seed = getattr(config.option, "randomly_seed", None)
    if torch is not None and isinstance(seed, int):
        torch.manual_seed(seed)


@pytest.fixture(scope="session")
def starter_dir() -> Path:
    """The starter model's folder, which `make starter` fetches."""
    folder = Path(os.environ.get("AFINA_TEST_STARTER", STARTER))
    if not (folder / "afina.json").exists():
        pytest.fail(f"{folder} is not there: run `make starter`")
    return folder
