"""Requests drawn from the OpenAPI documents, ours and the hosted service's: no 5xx, no status and
no answer that the document does not know. `make contract` draws 10,000."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.contract import hosted
from tests.contract.drawn import Verdict, judge
from tests.contract.live import BASE, Live, running, settings_for
from tests.contract.tenants import OPERATIONS, Asker, make_world

pytestmark = [pytest.mark.xdist_group("schema"), pytest.mark.filterwarnings("ignore")]
QUICK = 2
MANY = 10_000


@pytest.fixture
def stocked(tmp_path: Path) -> Iterator[tuple[Live, dict[str, list[str]]]]:
    """A server with an object of each kind, and the ids by the name of the path's parameter."""
    settings = settings_for(tmp_path / "data", log_level="error", webhooks={"timeout_s": 1})
    with running(settings) as live:
        owner = Asker(live, live.key)
        with owner.http:
            world = make_world(live, owner, tmp_path / "scratch", "here")
        ids: dict[str, set[str]] = {}
        for row in OPERATIONS.values():
            for name, kind in row.ids.items():
                ids.setdefault(name, set()).add(world[kind])
        yield live, {name: sorted(found) for name, found in ids.items()}


def ours(stocked: tuple[Live, dict[str, list[str]]], cases: int) -> Verdict:
    live, ids = stocked
    document = httpx2.get(f"{live.url}/openapi.json", trust_env=False, timeout=30).json()
    return judge(document, live.url, live.key, ids, cases)


def theirs(stocked: tuple[Live, dict[str, list[str]]], cases: int) -> Verdict:
    live, ids = stocked
    document = hosted.document()
    job = document["components"]["schemas"]["CreateJob"]["properties"]
    drawn = {"anyOf": [{"enum": [BASE]}, {"type": "string"}]}
    job["model"], job["training_file"] = drawn, {"anyOf": [{"enum": ids["file_id"]}, drawn]}
    return judge(document, live.url, live.key, ids, cases)


def test_drawn_requests_are_answered_as_our_document_says(
    stocked: tuple[Live, dict[str, list[str]]],
) -> None:
    verdict = ours(stocked, QUICK)
    assert not verdict.failures
    assert verdict.statuses["200"] > 20


def test_drawn_requests_are_answered_as_the_hosted_services_document_says(
    stocked: tuple[Live, dict[str, list[str]]],
) -> None:
    verdict = theirs(stocked, 10)
    assert not verdict.failures
    assert verdict.statuses["200"] >= 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_drawn_requests_are_answered_as_the_documents_say(
    stocked: tuple[Live, dict[str, list[str]]],
    record_property: Callable[[str, object], None],
) -> None:
    mine = ours(stocked, MANY // len(OPERATIONS))
    hosts = theirs(stocked, MANY // 100)
    record_property("ours", dict(mine.statuses))
    record_property("hosted", dict(hosts.statuses))
    assert not mine.failures | hosts.failures
    assert sum(mine.statuses.values()) + sum(hosts.statuses.values()) >= MANY
