"""Signing in at the dashboard through an OpenID Connect provider.

`begin` sends a browser away with a signed cookie that holds the state of this sign-in; `finish`
takes it when the provider sends the browser back. The nonce and the proof key (PKCE) are derived
from the state under this server's secret, so they are kept nowhere. A state counts once.

Who comes back must be a user of the organization with a place in a project: the provider says who
somebody is, never what they may do. The provider's own id is remembered at the first sign-in, so
that an address which is given to somebody else later opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from afina.domain.accounts import Caller, User
from afina.errors import BadSettings, Forbidden, Unauthenticated
from afina.service.audit import note
from afina.service.oidc_provider import Identity, OidcProvider
from afina.service.platform import Platform
from afina.service.sessions import Session, open_session_for, sign
from afina.store import accounts, people
from afina.store.database import Tx

CALLBACK: Final = "/sign-in/oidc/callback"
BEGUN_S: Final = 600
"""How long somebody may take at the provider."""
_STATE_LENGTH: Final = 43
_USED: Final = "oidc-"


@dataclass(frozen=True)
class Begun:
    """Where the browser goes, and the cookie that it brings back."""

    address: str
    cookie: str


@dataclass(frozen=True)
class Entered:
    """A session, its cookie, and the page that its owner wanted."""

    session: Session
    cookie: str
    target: str


def begin(platform: Platform, provider: OidcProvider, redirect_uri: str, target: str) -> Begun:
    """Starts a sign-in that ends at the page `target`. Raises Unavailable."""
    state = platform.ids.new("", _STATE_LENGTH)
    verifier = _verifier(platform, state)
    challenge = hashlib.sha256(verifier.encode()).digest()
    address = provider.address(
        redirect_uri,
        state,
        _nonce(platform, state),
        base64.urlsafe_b64encode(challenge).decode().rstrip("="),
    )
    where = base64.urlsafe_b64encode(target.encode()).decode().rstrip("=")
    body = f"{state}.{platform.now() + BEGUN_S}.{where}"
    return Begun(address, f"{body}.{sign(platform, 'oidc', body)}")


def finish(
    platform: Platform,
    provider: OidcProvider,
    redirect_uri: str,
    query: Mapping[str, str],
    cookie: str,
) -> Entered:
    """Opens a session for whoever the provider says it is. Raises Unauthenticated, Forbidden for
    somebody who has no place here, Unavailable."""
    state, target = _begun(platform, cookie)
    if not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
        raise _not_begun()
    if query.get("iss", provider.settings.issuer) != provider.settings.issuer:
        raise Unauthenticated(
            "This sign-in was answered by another provider.",
            code="oidc_refused",
            remedy="Begin again.",
        )
    _use(platform, state)
    code = query.get("code", "")
    if not code or "error" in query:
        raise _refused_there(query.get("error", ""))
    identity = provider.identity(
        code, redirect_uri, _verifier(platform, state), _nonce(platform, state)
    )
    session, opened = _open(platform, provider, identity)
    return Entered(session, opened, target)


def _begun(platform: Platform, cookie: str) -> tuple[str, str]:
    body, _, signature = cookie.rpartition(".")
    if not hmac.compare_digest(signature.encode(), sign(platform, "oidc", body).encode()):
        raise _not_begun()
    state, expires_at, where = body.split(".")
    if int(expires_at) <= platform.now():
        raise _not_begun()
    try:
        target = base64.urlsafe_b64decode(where + "=" * (-len(where) % 4)).decode()
    except (ValueError, binascii.Error):
        raise _not_begun() from None
    return state, target


def _use(platform: Platform, state: str) -> None:
    """Marks the state as used; of two who bring it, one succeeds. Marks go when it has expired."""
    folder = platform.settings.data / "sign-in"
    mark = folder / (_USED + hashlib.sha256(state.encode()).hexdigest())
    now = platform.clock.now()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in folder.glob(_USED + "*"):
            with contextlib.suppress(OSError):
                if now - float(old.read_text() or now) > 2 * BEGUN_S:
                    old.unlink()
        number = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Unauthenticated(
            "This sign-in was used before.", code="oidc_refused", remedy="Begin again."
        ) from None
    except OSError as error:
        raise BadSettings(f"{folder} cannot be written to: {error.strerror}.") from None
    with os.fdopen(number, "w") as file:
        file.write(str(int(now)))


def _open(platform: Platform, provider: OidcProvider, who: Identity) -> tuple[Session, str]:
    settings = provider.settings
    if not who.email_verified and not settings.unverified_email:
        raise Forbidden(
            "The provider has not verified this e-mail address.",
            code="oidc_unverified",
            remedy="Verify it there and begin again.",
        )
    domain = who.email.rpartition("@")[2]
    if settings.allowed_domains and domain not in {d.lower() for d in settings.allowed_domains}:
        raise Forbidden(
            "Addresses of this domain do not come in here.",
            code="oidc_domain",
            remedy="An admin names the domains under [oidc] allowed_domains in afina.toml.",
        )
    subject = f"{settings.issuer} {who.subject}"
    with platform.database.write() as tx:
        user = _user(tx, subject, who)
        project = _project(tx, user)
        people.remember_subject(tx, user.id, subject)
        caller = Caller(project, "", user.organization_id, user_id=user.id)
        note(platform, tx, caller, "login.succeeded", user.id)
    return open_session_for(platform, user, project, int(settings.session_hours * 3600))


def _user(tx: Tx, subject: str, who: Identity) -> User:
    """The user of that subject; else that of the address, if nobody else came in as it."""
    known = people.user_of_subject(tx, subject)
    if known is not None:
        return known
    for user, other in people.users_of_email(tx, who.email):
        if other is None:
            return user
        raise Forbidden(
            "This e-mail address belongs to another account of the provider here.",
            code="oidc_other_account",
            remedy="An owner can remove the user and invite the address again.",
        )
    raise Forbidden(
        "Nobody of this organization has your e-mail address.",
        code="oidc_unknown_user",
        remedy="Ask an owner to invite you (POST /v1/organization/invites).",
    )


def _project(tx: Tx, user: User) -> str:
    """Where the user's session stands: the first project that has a place for it; an owner needs
    none."""
    projects = accounts.list_projects(tx, user.organization_id)
    live = [project.id for project in projects if project.archived_at is None]
    places: list[str] = [*people.places_of(tx, user.id)]
    if user.role == "owner":
        places += live
    for project_id in places:
        if project_id in live:
            return project_id
    raise Forbidden(
        "You are known here, and have a place in no project.",
        code="oidc_no_project",
        remedy="Ask an owner to add you to one (POST /v1/organization/projects/…/users).",
    )


def _verifier(platform: Platform, state: str) -> str:
    return sign(platform, "oidc-verifier", state)


def _nonce(platform: Platform, state: str) -> str:
    return sign(platform, "oidc-nonce", state)


def _not_begun() -> Unauthenticated:
    return Unauthenticated(
        "This sign-in was not begun in this browser, or it took longer than ten minutes.",
        code="oidc_refused",
        remedy="Begin again.",
    )


def _refused_there(error: str) -> Unauthenticated:
    shown = f": {error}" if error.replace("_", "").isalnum() and len(error) <= 60 else ""
    return Unauthenticated(
        f"The provider did not sign you in{shown}.", code="oidc_refused", remedy="Begin again."
    )
