"""A real browser over a real platform on a tiny model. What is missing fails by its name."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.reader import Reader
from tests.live import BASE, LivePlatform
from tests.tiny import make_tiny_model

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    if importlib.util.find_spec("playwright") is None:
        pytest.fail("playwright is missing: make test-browser installs requirements/browser.txt")
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("chromium is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """The whole platform, on a model of a few thousand weights."""
    data: Path = tmp_path_factory.mktemp("data")
    make_tiny_model(data / "models" / BASE, base_id=BASE)
    with LivePlatform(data) as live:
        yield live


@pytest.fixture
def reader(chromium: Any, platform: LivePlatform) -> Iterator[Reader]:
    """Somebody who has signed in, in English, by day."""
    with Reader(chromium, platform) as reader:
        yield reader
