"""Every operation and every page, asked by every kind of key and session: each may do what
`roles.py` declares, and nothing else.

The application runs in this process, without sockets; paths name nothing that is there and bodies
are empty, so that whoever is let in is told of something else than rights.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from tests.contract.inside import Asked, Headers, running
from tests.contract.live import settings_for
from tests.contract.roles import (
    KEYS,
    NEEDS,
    OPEN,
    ORGANIZATION,
    OUTSIDERS,
    PAGES,
    PROJECT,
    SESSIONS,
)

from afina.api.app import create_app
from afina.domain.accounts import Caller, OwnerKind, User
from afina.domain.scopes import KNOWN
from afina.service import keys, people, projects
from afina.service.keys import NewKey, authenticate
from afina.service.platform import Platform
from afina.service.sessions import Session, form_token, open_session, open_session_for
from afina.store import accounts
from afina.web import files
from afina.web.pages import ROUTES
from afina.web.visit import SESSION_COOKIE, TOKEN_HEADER

pytestmark = [pytest.mark.xdist_group("roles"), pytest.mark.long]
REFUSED: Final = (401, 403)
PROGRAM: Final = OwnerKind.SERVICE_ACCOUNT
Found = list[tuple[object, ...]]


@dataclass(frozen=True)
class Maker:
    """Makes the keys of a project."""

    platform: Platform
    caller: Caller

    def key(self, owner: OwnerKind | None = None, id_: str | None = None, **more: Any) -> str:
        project = more.pop("project", self.caller.project_id)
        new = replace(NewKey("one of many", None, None, owner, id_), **more)
        return keys.create_key_for(self.platform, self.caller, project, new)[1]

    def user(self, name: str, role: str, place: str) -> User:
        places = [(self.caller.project_id, place)]
        return people.add_user(self.platform, self.caller, f"{name}@example.com", role, places).user

    def account(self, role: str) -> Any:
        project = self.caller.project_id
        return people.create_service_account(self.platform, self.caller, project, role, role)

    def insiders(self) -> dict[str, str]:
        owner, member, nothing = (self.account(role) for role in ("owner", "member", "none"))
        users = {
            "the key of an owner of the organization": ("ana", "owner", "owner"),
            "the key of a reader who is an owner of the project": ("bo", "reader", "owner"),
            "the key of a reader who is a member": ("cy", "reader", "member"),
        }
        account = "the key of a service account that is"
        return {
            "the first key": first_of(self.platform),
            "an admin key": keys.create_admin_key(self.platform, self.caller, NewKey("ops"))[1],
            "the project's own key": self.key(),
            **{name: self.key(OwnerKind.USER, self.user(*who).id) for name, who in users.items()},
            f"{account} an owner": self.key(PROGRAM, owner.id),
            f"{account} a member": self.key(PROGRAM, member.id),
            f"{account} nothing": self.key(PROGRAM, nothing.id),
            f"{account} nothing, with a scope": self.key(
                PROGRAM, nothing.id, scopes=("api.files.write",)
            ),
            **{f"a key with {one}": self.key(scopes=(one,)) for one in KNOWN},
        }

    def outsiders(self) -> dict[str, Headers]:
        platform, caller = self.platform, self.caller
        revoked, expired = (keys.create_key(platform, caller, "over") for _ in range(2))
        keys.revoke_key(platform, caller, revoked[0].id)
        with platform.database.write() as tx:
            accounts.update_key(tx, replace(expired[0], expires_at=platform.now() - 1))
        other = projects.create_project(platform, caller, "archived").id
        archived = self.key(project=other)
        projects.archive_project(platform, caller, other)
        leaving, ending = self.user("di", "owner", "owner"), self.account("owner")
        left, ended = self.key(OwnerKind.USER, leaving.id), self.key(PROGRAM, ending.id)
        people.remove_user(platform, caller, leaving.id)
        people.remove_service_account(platform, caller, ending)
        cookie = open_session(platform, first_of(platform))[1]
        return {
            "no key": {},
            "a key that never was": bearer("sk-afina-" + "x" * 43),
            "a revoked key": bearer(revoked[1]),
            "an expired key": bearer(expired[1]),
            "a key of an archived project": bearer(archived),
            "a key of a user who was removed": bearer(left),
            "a key of a service account that was ended": bearer(ended),
            "the cookie of a dashboard session": {"cookie": f"{SESSION_COOKIE}={cookie}"},
        }


def maker(platform: Platform) -> Maker:
    return Maker(platform, authenticate(platform, first_of(platform)))


def first_of(platform: Platform) -> str:
    return (platform.settings.data / "api-key").read_text().strip()


def bearer(key: str) -> Headers:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def walk(folder: Path, steps: Callable[[Asked], Awaitable[Found]]) -> None:
    """Runs the application for those steps; what they found must be nothing."""

    async def whole() -> Found:
        async with running(folder) as asked:
            return await steps(asked)

    assert anyio.run(whole) == []


def test_every_operation_and_every_page_is_declared(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path))
    document = app.openapi()["paths"]
    operations = {f"{m.upper()} {path}" for path, methods in document.items() for m in methods}
    unlisted = {"GET /docs", "GET /openapi.json"}
    assert set(NEEDS) == operations | unlisted
    pages = {f"{method} {path}" for method, path, _ in ROUTES}
    assert set(PAGES) == pages | {f"GET {files.PREFIX}{{path:path}}"}
    assert set(NEEDS.values()) <= PROJECT | {OPEN, ORGANIZATION}


def test_every_key_does_what_is_declared_and_nothing_else(tmp_path: Path) -> None:
    async def steps(asked: Asked) -> Found:
        found = maker(asked.platform).insiders()
        assert set(found) == set(KEYS)
        wrong: Found = []
        for role, key in found.items():
            for operation, need in NEEDS.items():
                status, text = await asked.ask(operation, bearer(key))
                if need == OPEN or need in KEYS[role]:
                    right = status not in REFUSED and status != 500
                else:
                    right = status == 403 and '"code":"insufficient_permissions"' in text
                if not right:
                    wrong.append((role, operation, need, status, text[:200]))
        return wrong

    walk(tmp_path, steps)


def test_who_has_no_living_key_opens_nothing(tmp_path: Path) -> None:
    async def steps(asked: Asked) -> Found:
        found = maker(asked.platform).outsiders()
        assert set(found) == set(OUTSIDERS)
        wrong: Found = []
        for role, headers in found.items():
            for operation, need in NEEDS.items():
                status, text = await asked.ask(operation, headers)
                if (status == 401) != (need != OPEN) or status == 500:
                    wrong.append((role, operation, status, text[:200]))
        return wrong

    walk(tmp_path, steps)


def test_no_other_spelling_of_a_path_opens_it(tmp_path: Path) -> None:
    async def steps(asked: Asked) -> Found:
        key = bearer(maker(asked.platform).key(scopes=("api.keys.read",)))
        wrong: Found = []
        for operation, need in NEEDS.items():
            method, path = operation.split(" ")
            if need in (OPEN, "api.keys.read"):
                continue
            spellings = [f"{path}/", f"/{path}", path.upper(), f"/v1/afina/keys/..{path}"]
            spellings += [f"{path}\x00", f"{path};a", path.replace("/v1/", "/v1//")]
            asks = [(method, one) for one in spellings]
            asks += [(one, path) for one in ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE")]
            for verb, spelling in asks:
                status, _ = await asked.ask(f"{verb} {spelling.replace(' ', '')}", key)
                if status not in (403, 404, 405):
                    wrong.append((verb, spelling, status))
        return wrong

    walk(tmp_path, steps)


def test_every_session_opens_the_pages_that_are_declared(tmp_path: Path) -> None:
    async def steps(asked: Asked) -> Found:
        made, platform = maker(asked.platform), asked.platform
        project = made.caller.project_id
        owner, member = made.user("ana", "owner", "owner"), made.user("cy", "reader", "member")
        sessions: dict[str, tuple[Session, str]] = {
            "of the first key": open_session(platform, first_of(platform)),
            "of the project's own key": open_session(platform, made.key()),
            "of an owner of the organization whom a provider vouches for": open_session_for(
                platform, owner, project, 600
            ),
            "of a member whom a provider vouches for": open_session_for(
                platform, member, project, 600
            ),
        }
        assert set(sessions) == set(SESSIONS)
        wrong: Found = []
        for role, (session, cookie) in sessions.items():
            own = {"cookie": f"{SESSION_COOKIE}={cookie}", "accept": "application/json"}
            token = {TOKEN_HEADER: form_token(platform, session)}
            for operation, need in PAGES.items():
                status, text = await asked.ask(operation, own | token)
                may = need in SESSIONS[role]
                # Open pages answer for themselves: a sign-in without a key is a 401.
                if (need != OPEN and (status in REFUSED) == may) or status == 500:
                    wrong.append((role, operation, status, text[:200]))
                if operation.startswith("POST ") and need != OPEN:
                    status, text = await asked.ask(operation, own)
                    if status != 403 or "form_token" not in text:
                        wrong.append((role, operation, "without the token", status, text[:200]))
        return wrong

    walk(tmp_path, steps)


def test_without_a_session_no_page_opens(tmp_path: Path) -> None:
    async def steps(asked: Asked) -> Found:
        wrong: Found = []
        made = maker(asked.platform)
        cookie = open_session(asked.platform, made.key())[1]
        forged = cookie[:-1] + ("a" if cookie[-1] != "a" else "b")
        for headers in ({}, {"cookie": f"{SESSION_COOKIE}={forged}"}):
            for operation, need in PAGES.items():
                if need == OPEN:
                    continue
                status, text = await asked.ask(operation, {**headers, "accept": "application/json"})
                if status != 401 or "session_over" not in text:
                    wrong.append((operation, status, text[:200]))
        return wrong

    walk(tmp_path, steps)
