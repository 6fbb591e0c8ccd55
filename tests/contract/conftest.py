"""One live server a module, and a fresh one where a test needs it for itself."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import openai
import pytest
from tests.contract.live import Live, running, settings_for

from afina.serving.testing import Script
from afina.settings import Settings

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the module's server; a module may have its own."""
    return settings_for(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def module_live(module_settings: Settings) -> Iterator[Live]:
    with running(module_settings) as live:
        yield live


@pytest.fixture
def live(module_live: Live) -> Live:
    """The module's server with the engine's script as it was at first."""
    module_live.engine.script = Script()
    return module_live


@pytest.fixture
def own_live(tmp_path: Path) -> Iterator[Live]:
    """A server of the test's own."""
    with running(settings_for(tmp_path)) as live:
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    """The official client."""
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=live.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def conformance() -> ModuleType:
    """What writes the page of conformance: it knows the operations of every client."""
    spec = importlib.util.spec_from_file_location("conformance", DOCS / "conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module
    spec.loader.exec_module(module)
    return module
