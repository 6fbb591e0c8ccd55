"""The page that says what of the wire API is here says what is true."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.contract.live import Live
from tests.contract.tenants import OPERATIONS

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_page_is_what_make_docs_writes(conformance: ModuleType) -> None:
    page: str = conformance.page()
    assert (DOCS / "conformance.md").read_text() == page


def test_every_operation_is_here_or_answers_with_a_sentence_of_its_own(
    conformance: ModuleType,
) -> None:
    page: str = conformance.page()
    assert "Invalid URL" not in page


def test_a_field_that_the_page_calls_refused_is_a_400_that_names_it(
    conformance: ModuleType, live: Live
) -> None:
    """Of every version of the client; the names in the paths are of no matter here."""
    here = conformance.offered()
    bodies: dict[tuple[str, str], Any] = {}
    for name, row in OPERATIONS.items():
        verb, _, path = name.partition(" ")
        bodies[(re.sub(r"\{[^}]*\}", "{}", path.removeprefix("/v1")), verb)] = row.body
    checked = set()
    for operations in conformance.by_version().values():
        for one in operations:
            known = here.get((one.path, one.verb))
            for field in () if known is None else set(one.fields) - known:
                body = {**(bodies[(one.path, one.verb)] or {}), field: "x"}
                path = "/v1" + one.path.replace("{}", "x")
                answer = live.http.request(one.verb, path, json=body)
                assert answer.status_code == 400, (path, field, answer.text)
                assert field in answer.json()["error"]["message"]
                checked.add((one.path, field))
    assert checked
