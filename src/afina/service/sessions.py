"""Sessions of the dashboard: opened with an API key, a one-time link or by a provider that vouches
for somebody (`service.oidc`), carried in a signed cookie.

A session is no row of its own. Its cookie names the key that opened it and is signed with a secret
in DATA/web-secret; whoever revokes the key ends its sessions. One-time links lie as empty files
named by the hash of their token in DATA/sign-in: whoever removes the file has used the link.
A person without a key gets one of their own for it, whose secret nobody has.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from afina.domain.accounts import Caller, KeyKind, User
from afina.domain.clock import Clock
from afina.domain.ids import Ids
from afina.errors import BadSettings, Unauthenticated
from afina.service.keys import authenticate, caller_of_key, sign_in_key
from afina.service.platform import Platform
from afina.store import people

SESSION_S: Final = 30 * 24 * 3600
LINK_S: Final = 24 * 3600
"""How long a one-time link may wait to be opened."""
_TOKEN_LENGTH: Final = 43
_TOKEN: Final = re.compile(r"[A-Za-z0-9]{43}")
_SECRET_LENGTH: Final = 43
_VOUCHED: Final = "v-"
"""Begins the id of a session that a provider vouches for."""


@dataclass(frozen=True)
class Session:
    """Who looks at the pages. `id` is random and tells sessions of one key apart."""

    caller: Caller
    id: str
    expires_at: int


def open_session(platform: Platform, secret: str) -> tuple[Session, str]:
    """A session for the owner of an API key, and its cookie. Raises Unauthenticated."""
    caller = authenticate(platform, secret.strip())
    if caller.scopes is not None or caller.kind is KeyKind.ADMIN:
        raise Unauthenticated(
            "This key does not open the dashboard: it is restricted, or an admin key.",
            remedy="Sign in with a key of a project that may do everything there.",
        )
    id_ = platform.ids.new("", 22)
    expires_at = platform.now() + SESSION_S
    body = f"{caller.organization_id}.{caller.key_id}.{expires_at}.{id_}"
    return Session(caller, id_, expires_at), f"{body}.{sign(platform, 'session', body)}"


def resume_session(platform: Platform, cookie: str) -> Session:
    """The session that a cookie carries. Raises Unauthenticated where it was forged or is over, or
    its key opens nothing any more."""
    body, _, signature = cookie.rpartition(".")
    if not hmac.compare_digest(signature.encode(), sign(platform, "session", body).encode()):
        raise _over()
    organization_id, key_id, expires_at, id_ = body.split(".")
    if int(expires_at) <= platform.now():
        raise _over()
    caller = caller_of_key(platform, key_id, organization_id)
    if id_.startswith(_VOUCHED):
        caller = _as_of_now(platform, caller)
    return Session(caller, id_, int(expires_at))


def open_session_for(
    platform: Platform, user: User, project_id: str, lasts_s: int
) -> tuple[Session, str]:
    """A session of a user in a project, and its cookie; removing the user ends it."""
    expires_at = platform.now() + lasts_s
    key = sign_in_key(platform, user, project_id, expires_at)
    id_ = platform.ids.new(_VOUCHED, 22)
    body = f"{user.organization_id}.{key.id}.{expires_at}.{id_}"
    cookie = f"{body}.{sign(platform, 'session', body)}"
    return resume_session(platform, cookie), cookie


def form_token(platform: Platform, session: Session) -> str:
    """What every form of this session carries, so that no other site can send one in its name."""
    return sign(platform, "form", session.id)


def new_link(data: Path, clock: Clock, ids: Ids) -> str:
    """Makes a one-time link and returns its path and query. Whoever may write into the data
    directory may make one. Raises BadSettings where that cannot be."""
    folder = data / "sign-in"
    token = ids.new("", _TOKEN_LENGTH)
    name = hashlib.sha256(token.encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(str(int(clock.now())))
    except OSError as error:
        raise BadSettings(f"{folder} cannot be written to: {error.strerror}.") from None
    return f"/enter?token={token}"


def use_link(platform: Platform, token: str) -> tuple[Session, str]:
    """Opens a session for the owner of the first key, once a link. Raises Unauthenticated."""
    folder = platform.settings.data / "sign-in"
    path = folder / hashlib.sha256(token.encode()).hexdigest()
    try:
        if not _TOKEN.fullmatch(token):
            raise FileNotFoundError
        made_at = int(path.read_text())
        path.unlink()  # of two that try, one succeeds
    except (OSError, ValueError):
        raise _used() from None
    if platform.clock.now() - made_at > LINK_S:
        raise _used()
    try:
        secret = (platform.settings.data / "api-key").read_text().strip()
    except OSError:
        raise Unauthenticated(
            "The first API key is not in the data directory any more.",
            remedy="Sign in with another key.",
        ) from None
    return open_session(platform, secret)


def _as_of_now(platform: Platform, caller: Caller) -> Caller:
    """What the user may do today: its places and its role may have changed since the sign-in."""
    with platform.database.read() as tx:
        user = people.get_user(tx, caller.user_id or "", caller.organization_id)
        places = people.places_of(tx, caller.user_id or "")
    if user is None or (user.role != "owner" and caller.project_id not in places):
        raise _over()
    return replace(caller, kind=KeyKind.ROOT) if user.role == "owner" else caller


def _used() -> Unauthenticated:
    return Unauthenticated(
        "This link was used before, or its time is over.",
        code="link_used",
        remedy="Ask for a new one with `afina dashboard`, or sign in with an API key.",
    )


def _over() -> Unauthenticated:
    return Unauthenticated("The session is over.", code="session_over", remedy="Sign in again.")


def sign(platform: Platform, use: str, text: str) -> str:
    """43 characters that only this server can make of `text`, for one `use`."""
    digest = hmac.new(_secret(platform), f"{use}:{text}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _secret(platform: Platform) -> bytes:
    """The signing secret, made at its first use. Of two who make it at once, the first one's
    stays."""
    path = platform.settings.data / "web-secret"
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    if len(found) == _SECRET_LENGTH:
        return found
    staged = path.with_name(f".web-secret.{platform.ids.new('', 8)}")
    try:
        number = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(platform.ids.new("", _SECRET_LENGTH).encode())
            file.flush()
            os.fsync(file.fileno())
        if found:
            path.unlink(missing_ok=True)  # damaged: of another length
        os.link(staged, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadSettings(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        staged.unlink(missing_ok=True)
    return path.read_bytes()
