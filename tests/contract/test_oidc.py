"""Sign-in at the dashboard through a real provider: who comes in, and all that comes in nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from tests.contract.live import Live, running, settings_for
from tests.contract.provider import CLIENT, SECRET, Claims, Provider, b64

from afina.domain.accounts import Caller
from afina.outside_settings import OidcSettings
from afina.service import keys, people
from afina.service.audit import list_audit

MARIA = "maria@example.com"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running_one:
        yield running_one


@pytest.fixture
def live(tmp_path: Path, provider: Provider) -> Iterator[Live]:
    oidc = OidcSettings(
        issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, name="Acme",
        allow_private=True,
    )  # fmt: skip
    with running(settings_for(tmp_path, oidc=oidc), pages=True) as server:
        yield server


@pytest.fixture
def owner(live: Live) -> Caller:
    return keys.authenticate(live.platform, live.key)


@pytest.fixture
def maria(live: Live, owner: Caller) -> people.Person:
    place = (owner.project_id, "member")
    return people.add_user(live.platform, owner, MARIA, "reader", [place])


@pytest.fixture
def browser(live: Live) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live.url, trust_env=False) as client:
        client.headers["accept"] = "text/html"
        yield client


def begun(browser: httpx2.Client, target: str = "/usage") -> str:
    """The address that the provider sends the browser back to."""
    away = browser.get("/sign-in/oidc", params={"next": target})
    assert away.status_code == 303, away.text
    back = browser.get(away.headers["location"])
    assert back.status_code == 302
    return str(back.headers["location"])


def refused(answer: httpx2.Response, status: int, said: str) -> None:
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert "afina_session" not in answer.cookies


@pytest.mark.usefixtures("maria")
def test_a_user_comes_in_by_the_button_and_reaches_the_page_that_was_asked_for(
    live: Live, browser: httpx2.Client, owner: Caller
) -> None:
    form = browser.get("/sign-in?next=/usage")
    assert "Sign in with Acme" in form.text
    assert 'href="/sign-in/oidc?next=/usage"' in form.text
    entered = browser.get(begun(browser))
    assert (entered.status_code, entered.headers["location"]) == (303, "/usage")
    cookie = entered.headers["set-cookie"].lower()
    assert "afina_session=" in cookie
    assert "httponly" in cookie
    assert browser.get("/usage").status_code == 200
    assert list_audit(live.platform, owner).data[0].type == "login.succeeded"
    found = [k for k in keys.list_keys(live.platform, owner) if k.name == keys.SIGN_IN]
    assert len(found) == 1
    browser.cookies.clear()
    assert browser.get(begun(browser)).status_code == 303
    again = [k for k in keys.list_keys(live.platform, owner) if k.name == keys.SIGN_IN]
    assert [k.id for k in again] == [found[0].id]


@pytest.mark.parametrize(("language", "said"), [("es", "Entrar con"), ("pt", "Entrar com")])
def test_the_button_speaks_the_reader_s_language(
    browser: httpx2.Client, language: str, said: str
) -> None:
    answer = browser.get("/sign-in", headers={"accept-language": language})
    assert f"{said} Acme" in answer.text


@pytest.mark.usefixtures("maria")
def test_a_sign_in_counts_once_and_in_the_browser_that_began_it(browser: httpx2.Client) -> None:
    address = begun(browser)
    kept = browser.cookies["afina_oidc"]
    bare = {"cookie": "afina_oidc="}
    refused(browser.get(address, headers=bare), 401, "not begun in this browser")
    for forged in (kept[:-1] + ("A" if kept[-1] != "A" else "B"), "a.b.c", kept.partition(".")[2]):
        answer = browser.get(address, headers={"cookie": f"afina_oidc={forged}"})
        refused(answer, 401, "not begun in this browser")
    same = {"cookie": f"afina_oidc={kept}"}
    other = browser.get(address.replace("state=", "state=x"), headers=same)
    refused(other, 401, "not begun in this browser")
    mixed = browser.get(address.replace("realm", "other"), headers=same)
    refused(mixed, 401, "another provider")
    assert browser.get(address, headers=same).status_code == 303
    browser.cookies.clear()
    refused(browser.get(address, headers=same), 401, "was used before")


def _without(name: str) -> Callable[[Claims], Claims]:
    return lambda claims: {k: v for k, v in claims.items() if k != name}


def _with(**said: Any) -> Callable[[Claims], Claims]:
    return lambda claims: claims | said


@pytest.mark.usefixtures("maria")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with(nonce="of-another-sign-in"), "belongs to another sign-in"),
        (_without("nonce"), "belongs to another sign-in"),
        (_with(exp=1_700_000_000), "has expired"),
        (_without("exp"), "how long it holds"),
        (_with(exp="never"), "how long it holds"),
        (_with(iat=9_999_999_999), "of a time to come"),
        (_with(iss="https://evil.example"), "another issuer"),
        (_with(aud="another-client"), "for another client"),
        (_with(aud=[CLIENT, "another"]), "given to another client"),
        (_with(azp="another"), "given to another client"),
        (_without("sub"), "names nobody"),
        (_without("email"), "no e-mail address"),
    ],
)
def test_a_token_that_says_anything_else_opens_nothing(
    provider: Provider, browser: httpx2.Client, change: Callable[[Claims], Claims], said: str
) -> None:
    provider.change = change
    refused(browser.get(begun(browser)), 401, said)


def _unsigned(_: Provider, claims: Claims) -> str:
    head = b64(json.dumps({"alg": "none"}).encode())
    return f"{head}.{b64(json.dumps(claims).encode())}."


def _by_public_key(provider: Provider, claims: Claims) -> str:
    pem = provider.key.as_pem(private=False)
    header = {"alg": "HS256", "kid": provider.key.kid}
    return jwt.encode(header, claims, OctKey.import_key(base64.b64encode(pem)))


def _by_client_secret(_: Provider, claims: Claims) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET * 2))


def _tampered(provider: Provider, claims: Claims) -> str:
    head, _, signature = provider.signed(claims | {"email": "nobody@example.com"}).split(".")
    return f"{head}.{b64(json.dumps(claims).encode())}.{signature}"


def _by_another_key(provider: Provider, claims: Claims) -> str:
    return provider.signed(claims, RSAKey.generate_key(2048))


def _cut(provider: Provider, claims: Claims) -> str:
    return provider.signed(claims)[:-4]


@pytest.mark.usefixtures("maria")
@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (_unsigned, "with a private key"),
        (_by_public_key, "with a private key"),
        (_by_client_secret, "with a private key"),
        (_tampered, "No key of the provider"),
        (_by_another_key, "No key of the provider"),
        (_cut, "No key of the provider"),
        (lambda *_: "x", "no signed one"),
        (lambda *_: "a.b.c", "cannot be read"),
    ],
)
def test_a_token_that_the_provider_did_not_sign_opens_nothing(
    provider: Provider,
    browser: httpx2.Client,
    sign: Callable[[Provider, Claims], str],
    said: str,
) -> None:
    provider.sign = lambda claims: sign(provider, claims)
    refused(browser.get(begun(browser)), 401, said)


@pytest.mark.usefixtures("maria")
def test_a_new_key_of_the_provider_is_asked_for(provider: Provider, browser: httpx2.Client) -> None:
    assert browser.get(begun(browser)).status_code == 303
    provider.rotate()
    browser.cookies.clear()
    assert browser.get(begun(browser)).status_code == 303


@pytest.mark.usefixtures("maria")
def test_who_is_not_known_here_does_not_come_in(provider: Provider, browser: httpx2.Client) -> None:
    known = dict(provider.person)
    provider.person = known | {"email": "eve@example.com"}
    refused(browser.get(begun(browser)), 403, "Nobody of this organization")
    for unsure in (False, "true", None):
        provider.person = known | {"email_verified": unsure}
        refused(browser.get(begun(browser)), 403, "has not verified")
    provider.person = known
    assert browser.get(begun(browser)).status_code == 303
    browser.cookies.clear()
    provider.person = known | {"sub": "8"}
    refused(browser.get(begun(browser)), 403, "belongs to another account")
    provider.person = known | {"email": "maria.new@example.com"}
    assert browser.get(begun(browser)).status_code == 303


def test_only_named_domains_come_in(tmp_path: Path, provider: Provider) -> None:
    oidc = OidcSettings(
        issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, allow_private=True,
        allowed_domains=("Acme.example",),
    )  # fmt: skip
    with (
        running(settings_for(tmp_path, oidc=oidc), pages=True) as live,
        httpx2.Client(base_url=live.url, trust_env=False) as browser,
    ):
        owner = keys.authenticate(live.platform, live.key)
        for email in (MARIA, "maria@acme.example"):
            people.add_user(live.platform, owner, email, "owner")
        refused(browser.get(begun(browser)), 403, "of this domain")
        provider.person |= {"email": "Maria@ACME.example"}
        assert browser.get(begun(browser)).status_code == 303


def test_what_a_user_may_do_is_asked_at_every_request(
    live: Live, browser: httpx2.Client, owner: Caller, maria: people.Person
) -> None:
    id_ = maria.user.id
    browser.get(begun(browser))
    assert browser.get("/usage").status_code == 200
    people.remove_member(live.platform, owner, owner.project_id, id_)
    assert browser.get("/usage").status_code == 303
    refused(browser.get(begun(browser)), 403, "a place in no project")
    people.change_role(live.platform, owner, id_, "owner")
    assert browser.get(begun(browser)).status_code == 303
    assert browser.get("/usage").status_code == 200
    people.change_role(live.platform, owner, id_, "reader")
    assert browser.get("/usage").status_code == 303
    people.change_role(live.platform, owner, id_, "owner")
    people.remove_user(live.platform, owner, id_)
    assert browser.get("/usage").status_code == 303
    refused(browser.get(begun(browser)), 403, "Nobody of this organization")


@pytest.mark.usefixtures("maria")
def test_what_the_provider_does_not_want_is_said_in_plain_words(
    provider: Provider, browser: httpx2.Client
) -> None:
    provider.refuses = "access_denied"
    refused(browser.get(begun(browser)), 401, "did not sign you in: access_denied")
    provider.refuses = "<script>"
    answer = browser.get(begun(browser))
    refused(answer, 401, "did not sign you in")
    assert "<script>" not in answer.text
    provider.refuses = None
    address = begun(browser)
    wrong = browser.get(address.replace("code=", "code=x"))
    refused(wrong, 401, "gave no token for this sign-in. It says: invalid_grant")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"issuer": "https://evil.example"}, "another issuer than the setting"),
        ({"token_endpoint": None}, "no token_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "no jwks_uri"),
        ({"padding": "x" * 600_000}, "could not be asked"),
    ],
)
def test_a_provider_that_cannot_be_trusted_is_not_asked_further(
    provider: Provider, browser: httpx2.Client, document: Claims, said: str
) -> None:
    provider.document = document
    answer = browser.get("/sign-in/oidc")
    refused(answer, 503, said)
    assert provider.asked == ["/realm/.well-known/openid-configuration"]


def test_a_provider_in_a_private_network_needs_a_setting(
    tmp_path: Path, provider: Provider
) -> None:
    oidc = OidcSettings(issuer=provider.issuer, client_id=CLIENT)
    with (
        running(settings_for(tmp_path, oidc=oidc), pages=True) as live,
        httpx2.Client(base_url=live.url, trust_env=False) as browser,
    ):
        refused(browser.get("/sign-in/oidc"), 503, "allow_private")
    assert provider.asked == []


def test_without_the_setting_there_is_no_other_way_in(tmp_path: Path) -> None:
    with (
        running(settings_for(tmp_path), pages=True) as live,
        httpx2.Client(base_url=live.url, trust_env=False) as browser,
    ):
        assert "/sign-in/oidc" not in browser.get("/sign-in").text
        refused(browser.get("/sign-in/oidc"), 404, "No sign-in provider")
        refused(browser.get("/sign-in/oidc/callback?code=a&state=b"), 404, "No sign-in provider")


@pytest.mark.usefixtures("maria")
def test_the_way_back_leads_to_a_page_of_this_site_alone(browser: httpx2.Client) -> None:
    entered = browser.get(begun(browser, "//evil.example/"))
    assert entered.headers["location"] == "/"
