"""The page that says what of the wire API is here says what is true."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def conformance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance", DOCS / "conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_make_docs_writes(conformance: ModuleType) -> None:
    page: str = conformance.page()
    assert (DOCS / "conformance.md").read_text() == page


def test_every_operation_is_here_or_answers_with_a_sentence_of_its_own(
    conformance: ModuleType,
) -> None:
    page: str = conformance.page()
    assert "Invalid URL" not in page
