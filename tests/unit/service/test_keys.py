"""Keys: one made at the first start, hashed in the store, dead the moment they are revoked."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.platforms import clock_of, open_platform

from afina.domain.accounts import Caller, KeyKind, OwnerKind
from afina.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from afina.service import people
from afina.service.keys import (
    SECRET,
    NewKey,
    authenticate,
    create_admin_key,
    create_key,
    create_key_for,
    ensure_first_key,
    list_keys,
    revoke_key,
)
from afina.service.platform import Platform
from afina.service.projects import create_project
from afina.store import accounts


def test_the_first_key_is_written_for_its_owner_alone(platform: Platform) -> None:
    path = ensure_first_key(platform)
    assert path == platform.settings.data / "api-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET.fullmatch(path.read_text().strip())
    caller = authenticate(platform, path.read_text().strip())
    assert re.fullmatch(r"proj_\w{24}", caller.project_id)
    assert re.fullmatch(r"org-\w{24}", caller.organization_id)


def test_the_first_key_is_made_once_by_however_many_starts(tmp_path: Path) -> None:
    platform = open_platform(tmp_path / "data")

    def start(_: int) -> str:
        return ensure_first_key(platform).read_text()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(8)))
    caller = authenticate(platform, found[0].strip())
    assert len(set(found)) == len(list_keys(platform, caller)) == 1
    platform.close()


def test_a_start_that_died_before_storing_its_key_is_taken_up(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "insert_key", die)
        with pytest.raises(KeyboardInterrupt):
            ensure_first_key(platform)
    path = platform.settings.data / "api-key"
    path.write_text(platform.ids.secret() + "\n")
    before = path.read_text()
    assert ensure_first_key(platform).read_text() == before
    authenticate(platform, before.strip())


def test_a_key_file_that_holds_no_key_is_replaced(platform: Platform) -> None:
    path = platform.settings.data / "api-key"
    path.write_text("hunter2\n")
    authenticate(platform, ensure_first_key(platform).read_text().strip())


@pytest.mark.sqlite
def test_the_store_holds_no_secret(platform: Platform, caller: Caller) -> None:
    _, secret = create_key(platform, caller, "mine")
    database = platform.database.path
    assert database is not None
    for path in database.parent.glob("afina.db*"):
        assert secret.encode() not in path.read_bytes()
        assert secret[9:30].encode() not in path.read_bytes()


def test_a_key_opens_its_project_until_it_is_revoked(platform: Platform, caller: Caller) -> None:
    key, secret = create_key(platform, caller, "mine")
    found = authenticate(platform, secret)
    assert (found.project_id, found.key_id) == (caller.project_id, key.id)
    assert key.redacted == f"{secret[:12]}…{secret[-4:]}"
    revoked = revoke_key(platform, caller, key.id)
    assert revoked.revoked_at == platform.now()
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticate(platform, secret)
    clock_of(platform).advance(5)
    assert revoke_key(platform, caller, key.id) == revoked


def test_a_key_opens_nothing_after_its_time(platform: Platform, caller: Caller) -> None:
    _, secret = create_key(platform, caller, "short", expires_after_s=10)
    clock_of(platform).advance(9)
    authenticate(platform, secret)
    clock_of(platform).advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticate(platform, secret)


@pytest.mark.parametrize("secret", ["", "sk-afina-", "sk-" + "a" * 100_000, "\udcff", "é" * 43])
def test_what_is_no_key_opens_nothing(platform: Platform, caller: Caller, secret: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(platform, secret)
    assert caught.value.code == "invalid_api_key"
    assert secret not in caught.value.message or not secret


def test_keys_are_listed_and_revoked_within_their_project(
    platform: Platform, caller: Caller, stranger: Caller
) -> None:
    key, _ = create_key(platform, caller, "mine")
    assert [k.name for k in list_keys(platform, caller)] == ["mine", "First key"]
    assert list_keys(platform, stranger) == []
    with pytest.raises(NotFound):
        revoke_key(platform, stranger, key.id)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_names_of_keys_have_their_limits(platform: Platform, caller: Caller, name: str) -> None:
    with pytest.raises(InvalidRequest):
        create_key(platform, caller, name)


def test_use_of_a_key_is_noted_now_and_then(platform: Platform, caller: Caller) -> None:
    _, secret = create_key(platform, caller, "mine")
    used = []
    for seconds in (0, 299, 1):
        clock_of(platform).advance(seconds)
        authenticate(platform, secret)
        used.append(list_keys(platform, caller)[0].last_used_at)
    start = platform.now() - 300
    assert used == [start, start, start + 300]


def test_keys_that_a_user_makes_go_with_the_user_or_the_place_in_the_project(
    platform: Platform, caller: Caller
) -> None:
    admin = replace(caller, kind=KeyKind.ROOT)
    other = create_project(platform, admin, "another")
    secrets = {}
    user = people.add_user(platform, admin, "maria@example.com", "reader").user
    for project in (caller.project_id, other.id):
        people.put_member(platform, admin, project, "member", user_id=user.id)
        own = replace(caller, project_id=project, user_id=user.id)
        secrets[project] = create_key(platform, own, "mine")[1]
        assert authenticate(platform, secrets[project]).user_id == user.id
    stays = create_key(platform, caller, "the project's")[1]
    people.remove_member(platform, admin, other.id, user.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticate(platform, secrets[other.id])
    assert authenticate(platform, secrets[caller.project_id]).user_id == user.id
    people.remove_user(platform, admin, user.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticate(platform, secrets[caller.project_id])
    assert authenticate(platform, stays).user_id is None


def test_keys_that_a_service_account_makes_go_with_the_account(
    platform: Platform, caller: Caller
) -> None:
    admin = replace(caller, kind=KeyKind.ROOT)
    account = people.create_service_account(platform, admin, caller.project_id, "nightly")
    new = NewKey("its own", None, None, OwnerKind.SERVICE_ACCOUNT, account.id)
    secret = create_key_for(platform, admin, caller.project_id, new)[1]
    own = authenticate(platform, secret)
    made = create_key(platform, own, "made by it")[1]
    assert authenticate(platform, made).account_id == own.account_id == account.id
    people.remove_service_account(platform, admin, account)
    for one in (secret, made):
        with pytest.raises(Unauthenticated, match="revoked"):
            authenticate(platform, one)


def test_a_service_account_that_is_nothing_does_what_its_keys_scopes_name(
    platform: Platform, caller: Caller
) -> None:
    admin = replace(caller, kind=KeyKind.ROOT)
    account = people.create_service_account(platform, admin, caller.project_id, "nightly")
    keys = {}
    for scopes in (None, ("api.files.read",)):
        new = NewKey("its own", None, scopes, OwnerKind.SERVICE_ACCOUNT, account.id)
        keys[scopes] = create_key_for(platform, admin, caller.project_id, new)[1]
    assert authenticate(platform, keys[None]).scopes is None
    people.change_service_account(platform, admin, account, None, "none")
    for scopes, secret in keys.items():
        assert authenticate(platform, secret).scopes == (scopes or ())


def test_a_key_that_ends_makes_none_that_lives_longer(platform: Platform, caller: Caller) -> None:
    _, secret = create_key(platform, caller, "short", expires_after_s=100)
    own = authenticate(platform, secret)
    for life in (None, 101):
        with pytest.raises(InvalidRequest, match="end no later"):
            create_key(platform, own, "longer", life)
    create_key(platform, own, "as long", 100)


def test_the_first_key_ends_only_itself_and_only_where_an_admin_key_goes_on(
    platform: Platform,
) -> None:
    secret = ensure_first_key(platform).read_text().strip()
    root = authenticate(platform, secret)
    other = authenticate(platform, create_key(platform, root, "a member's")[1])
    for who in (other, root):
        with pytest.raises(Conflict, match="first key"):
            revoke_key(platform, who, root.key_id)
    create_admin_key(platform, root, NewKey("ops"))
    with pytest.raises(Conflict, match="first key"):
        revoke_key(platform, other, root.key_id)
    revoke_key(platform, root, root.key_id)
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticate(platform, secret)
