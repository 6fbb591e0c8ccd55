"""What the hosted service has and this server has not answers 404 with a sentence that says what it
is and what to do, whatever the method and the body."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import pytest
from tests.contract.inside import Asked, Headers, running

from afina.api.absent import CODE

OF_THE_SPECIFICATION: Final = (
    "GET /assistants",
    "POST /threads/runs",
    "POST /threads/{}/runs/{}/submit_tool_outputs",
    "POST /fine_tuning/alpha/graders/run",
    "POST /fine_tuning/alpha/graders/validate",
    "POST /evals/{}/runs/{}",
    "POST /evals/{}/runs/{}/cancel",
    "POST /realtime/client_secrets",
    "POST /realtime/calls/{}/hangup",
    "POST /audio/voices",
    "POST /images/variations",
    "GET /organization/certificates/{}",
    "GET /projects/{}/roles",
    "POST /projects/{}/users/{}/roles",
    "GET /prompts/{}",
    "POST /fine-tunes",
    "GET /engines/davinci",
    "POST /edits",
    "POST /engines/davinci/search",
)
"""Operations that no supported client spells, or whose path changed with the versions."""
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
JSON: Final = {"content-type": "application/json"}
BODIES: Final[tuple[tuple[bytes, Headers], ...]] = (
    (b"", {}),
    (b"{}", JSON),
    (b"[]", JSON),
    (b"null", JSON),
    (b'{"model": ', JSON),
    (b"\xff\xfe\x00", JSON),
    (b"[" * 5000, JSON),
    (b"plain text", {"content-type": "text/plain"}),
    (b"x" * 3_000_000, {"content-type": "application/octet-stream"}),
    (b"--cut\r\nbroken", {"content-type": "multipart/form-data; boundary=cut"}),
    (b"{}", {"content-type": "multipart/form-data"}),
)


@pytest.fixture(scope="module")
def absent(conformance: ModuleType) -> list[str]:
    """The operations of every client that are not here."""
    here = {f"{verb} {path}" for path, verb in conformance.offered()}
    clients = conformance.by_version().values()
    known = {f"{one.verb} {one.path}" for client in clients for one in client}
    return sorted(name.replace(" ", " /v1") for name in known.union(OF_THE_SPECIFICATION) - here)


def fault(status: int, text: str) -> str | None:
    """What is wrong with such an answer."""
    try:
        error: dict[str, Any] = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return f"{status} without an envelope: {text[:80]}"
    said = str(error["message"])
    if status != 404 or error["code"] != CODE:
        return f"{status} {error['code']}: {said}"
    if not re.fullmatch(r"[A-Z].+ not offered by this version of afina\. [A-Z].+\.", said):
        return f"no sentence that says what to do: {said}"
    return None


async def asked_for(folder: Path, asks: list[tuple[str, bytes, Headers]]) -> list[str]:
    async with running(folder) as asked:
        own = {"authorization": f"Bearer {key_of(asked)}"}
        wrong = []
        for operation, body, headers in asks:
            found = fault(*await asked.ask(operation, own | headers, body))
            if found is not None:
                wrong.append(f"{operation}: {found}")
        return wrong


def key_of(asked: Asked) -> str:
    return (asked.platform.settings.data / "api-key").read_text().strip()


def test_every_operation_of_a_client_that_is_not_here_says_so(
    absent: list[str], tmp_path: Path
) -> None:
    assert len(absent) > 240
    bodies = itertools.cycle(BODIES)
    asks = [(operation, *next(bodies)) for operation in absent]
    assert anyio.run(asked_for, tmp_path, asks) == []


def test_any_method_with_any_body_says_so(absent: list[str], tmp_path: Path) -> None:
    """Of one operation of each part of the service."""
    firsts = {name.split("/")[2]: name.split(" ")[1] for name in absent}
    del firsts["responses"]  # that part is here; a wrong method under it says so in its own way
    asks = [
        (f"{method} {path}", body, headers)
        for path in firsts.values()
        for method, (body, headers) in zip(METHODS, itertools.cycle(BODIES), strict=False)
    ]
    assert len(firsts) > 20
    assert anyio.run(asked_for, tmp_path, asks) == []
