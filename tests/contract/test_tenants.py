"""Nobody reaches what is another's: every operation, with every id, for every kind of stranger.

A stranger's answer to another's id is the answer to an id that never was: 404, word for word. The
table is in `tenants.py`; an operation or a field without its row there fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from tests.contract.live import Live, running, settings_for
from tests.contract.tenants import (
    ADMIN_ONLY,
    FIELDS,
    OPEN,
    OPERATIONS,
    Asker,
    id_fields,
    make_world,
)
from tests.platforms import other_caller

from afina.domain.accounts import Caller, KeyKind
from afina.service.keys import NewKey, authenticate, create_admin_key, create_key, create_key_for
from afina.service.projects import create_project

pytestmark = pytest.mark.xdist_group("tenants")
WITH_IDS = sorted(name for name, row in OPERATIONS.items() if row.ids)
FOR_ALL = [name for name in OPERATIONS if not ADMIN_ONLY.match(name)]
FOR_ADMINS = [name for name in OPERATIONS if ADMIN_ONLY.match(name)]
OF_KEYS = "GET /v1/afina/keys"
DELETIONS = (
    "DELETE /v1/afina/aliases/{name}",
    "DELETE /v1/fine_tuning/checkpoints/{model}/permissions/{permission_id}",
    "DELETE /v1/models/{model}",
    "DELETE /v1/afina/jobs/{job_id}",
    "DELETE /v1/files/{file_id}",
    "DELETE /v1/chat/completions/{completion_id}",
    "DELETE /v1/responses/{response_id}",
    "DELETE /v1/webhook_endpoints/{webhook_endpoint_id}",
    "DELETE /v1/organization/projects/{project_id}/api_keys/{key_id}",
    "DELETE /v1/organization/projects/{project_id}/service_accounts/{account_id}",
    "DELETE /v1/organization/projects/{project_id}/spend_alerts/{alert_id}",
    "DELETE /v1/organization/projects/{project_id}/spend_limit",
    "DELETE /v1/organization/spend_alerts/{alert_id}",
    "DELETE /v1/organization/admin_api_keys/{key_id}",
    "DELETE /v1/organization/users/{user_id}",
)
KEPT = {"upload", "part", "batch", "project", "key", "limit", "ledger", "audit", "alias"}
"""What is never deleted: it is cancelled, archived or revoked, or it is history."""


@dataclass
class Tenants:
    """The owner's living and deleted objects, and strangers with keys of their own."""

    live: Live
    owner: Asker
    here: dict[str, str]
    gone: dict[str, str]
    never: dict[str, str]
    neighbour: Asker
    """A key of another project of the same organization."""
    abroad: Asker
    """A key of a project of another organization, and an admin key of that organization."""
    narrow: Asker
    """A key of the owner's project that may read its keys and nothing else."""
    theirs: dict[str, str]
    """What the other organization owns itself."""


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    with running(settings_for(folder)) as live, ExitStack() as askers:
        yield _tenants(live, folder / "scratch", askers)


def _tenants(live: Live, scratch: Path, askers: ExitStack) -> Tenants:
    platform = live.platform
    caller = authenticate(platform, live.key)

    def asker(key: str, admin: str | None = None) -> Asker:
        made = Asker(live, key, admin)
        askers.enter_context(made.http)
        return made

    owner = asker(live.key)
    gone = make_world(live, owner, scratch / "gone", "gone")
    for operation in DELETIONS:
        answer = owner.ask(operation, gone)
        assert answer.status_code == 200, (operation, answer.text)
    here = make_world(live, owner, scratch / "here", "here")
    project = create_project(platform, caller, "Neighbour")
    neighbour = create_key_for(platform, caller, project.id, NewKey("neighbour"))[1]
    narrow = create_key(platform, caller, "narrow", None, ("api.keys.read",))[1]
    stranger = other_caller(platform)
    root = Caller(stranger.project_id, "key_none", stranger.organization_id, KeyKind.ROOT)
    admin = create_admin_key(platform, root, NewKey("their admin"))[1]
    abroad = asker(create_key(platform, root, "abroad")[1], admin)
    theirs = make_world(live, abroad, scratch / "theirs", "theirs")
    never = {kind: re.sub(r"[A-Za-z0-9]{6}$", "nobody", id) for kind, id in here.items()}
    never |= {"alias": "alias-nobody", "limit": "rl-nobody"}
    return Tenants(
        live, owner, here, gone, never, asker(neighbour), abroad, asker(narrow), theirs
    )  # fmt: skip


def with_field(
    tenants: Tenants, stranger: Asker, operation: str, field: str, id: str
) -> httpx2.Response:
    """The operation with `id` in a field of its query or body; what its path names is the other
    organization's own, so that the field alone is foreign."""
    if operation.startswith("GET "):
        listed = "[]" if field.endswith("s") else ""
        mark = "&" if OPERATIONS[operation].query else "?"
        return stranger.ask(operation, tenants.theirs, query=f"{mark}{field}{listed}={quote(id)}")
    body = dict(OPERATIONS[operation].body or {})  # type: ignore[call-overload]
    if operation == "POST /v1/fine_tuning/jobs":
        body["training_file"] = tenants.theirs["file"]
    if field == "projects.[].id":
        body["projects"] = [{"id": id, "role": "member"}]
    else:
        body[field] = [id] if field.endswith("_ids") else id
    if field == "user_id":
        del body["email"]
    return stranger.ask(operation, tenants.theirs, body)


def told(answer: httpx2.Response, ids: dict[str, str]) -> tuple[int, str]:
    """Status and body with the ids taken out, so that two refusals can be compared."""
    text = answer.text
    for id in sorted({*ids.values()}, key=len, reverse=True):
        text = text.replace(id, "…")
    return answer.status_code, text


def test_the_matrix_names_every_operation_and_every_field_that_holds_an_id(
    tenants: Tenants,
) -> None:
    document = httpx2.get(f"{tenants.live.url}/openapi.json", trust_env=False).json()
    found = {f"{m.upper()} {p}" for p, methods in document["paths"].items() for m in methods}
    assert found == set(OPERATIONS) | OPEN
    for operation in WITH_IDS:
        named = set(re.findall(r"\{(\w+)\}", operation))
        assert named == set(OPERATIONS[operation].ids), operation
    assert set(id_fields(document)) == set(FIELDS)


def test_without_a_key_every_operation_is_a_401(tenants: Tenants) -> None:
    wrong = []
    for key in (None, "sk-afina-" + "x" * 43):
        asker = Asker(tenants.live, key)
        with asker.http:
            for operation in OPERATIONS:
                for ids in (tenants.here, tenants.never):
                    answer = asker.ask(operation, ids)
                    if told(answer, ids)[0] != 401:
                        wrong.append((operation, answer.status_code))
    assert not wrong


def test_anothers_object_is_a_404_that_tells_nothing(tenants: Tenants) -> None:
    wrong: list[Any] = []
    for operation in (name for name in WITH_IDS if name in FOR_ALL):
        expected = told(tenants.owner.ask(operation, tenants.never), tenants.never)
        for stranger in (tenants.neighbour, tenants.abroad):
            found = told(stranger.ask(operation, tenants.here), tenants.here)
            if (found, expected[0]) != (expected, 404):
                wrong.append((operation, found, expected))
    assert not wrong


def test_another_organizations_object_is_a_404_that_tells_nothing(tenants: Tenants) -> None:
    """Also where the path's project or model is the stranger's own and what stands in it is not."""
    wrong: list[Any] = []
    for operation in (name for name in WITH_IDS if name in FOR_ADMINS):
        kinds = set(OPERATIONS[operation].ids.values())
        paths = [(tenants.here, tenants.never)]
        if len(kinds - {"limit"}) > 1:
            own = {kind: tenants.theirs[kind] for kind in kinds & {"project", "model"}}
            paths.append((tenants.here | own, tenants.never | own))
        for here, never in paths:
            expected = told(tenants.abroad.ask(operation, never), never)
            found = told(tenants.abroad.ask(operation, here), here)
            if (found, expected[0]) != (expected, 404):
                wrong.append((operation, found, expected))
    assert not wrong


def test_the_organization_opens_to_its_admins_alone(tenants: Tenants) -> None:
    wrong: list[Any] = []
    for operation in FOR_ADMINS:
        found = {
            told(tenants.neighbour.ask(operation, ids), ids)
            for ids in (tenants.here, tenants.never)
        }
        if {status for status, _ in found} != {403} or len(found) > 1:
            wrong.append((operation, found))
    assert not wrong


def test_a_deleted_object_is_a_404(tenants: Tenants) -> None:
    wrong: list[Any] = []
    for operation in WITH_IDS:
        if not {*OPERATIONS[operation].ids.values()} <= KEPT:
            answer = tenants.owner.ask(operation, tenants.gone)
            if answer.status_code != 404:
                wrong.append((operation, answer.status_code, answer.text))
    assert not wrong


def test_a_field_with_anothers_id_is_as_one_with_an_id_that_never_was(tenants: Tenants) -> None:
    wrong: list[Any] = []
    for name, kind in sorted(FIELDS.items()):
        operation, _, field = name.rpartition(" ")
        strangers = [tenants.abroad]
        if operation in FOR_ALL and not OPERATIONS[operation].ids:
            strangers.append(tenants.neighbour)
        for stranger in strangers:
            nothing = with_field(tenants, stranger, operation, field, tenants.never[kind])
            expected = told(nothing, tenants.never)
            assert expected[0] >= 400 or operation.startswith("GET "), name
            for ids in (tenants.here, tenants.gone):
                found = told(with_field(tenants, stranger, operation, field, ids[kind]), ids)
                if found != expected:
                    wrong.append((name, found, expected))
    assert not wrong


def test_a_key_without_the_scope_is_a_403_that_names_the_scope(tenants: Tenants) -> None:
    wrong: list[Any] = []
    for operation in (name for name in FOR_ALL if name != OF_KEYS):
        status, text = told(tenants.narrow.ask(operation, tenants.here), tenants.here)
        if status != 403 or "Missing scopes: api." not in text:
            wrong.append((operation, status, text))
    assert tenants.narrow.ask(OF_KEYS, tenants.here).status_code == 200
    assert not wrong


def test_after_all_strangers_the_owners_objects_are_as_they_were(tenants: Tenants) -> None:
    """Reads of every kind still answer, and what could have been stopped was not."""
    wrong: list[Any] = []
    for operation in WITH_IDS:
        if operation.startswith("GET "):
            answer = tenants.owner.ask(operation, tenants.here)
            if answer.status_code != 200:
                wrong.append((operation, answer.status_code, answer.text))
    assert not wrong
    status = {
        kind: tenants.owner.ask(f"GET /v1/{path}", tenants.here).json()["status"]
        for kind, path in (("batch", "batches/{batch_id}"), ("job", "fine_tuning/jobs/{job_id}"))
    }
    assert status == {"batch": "validating", "job": "succeeded"}
