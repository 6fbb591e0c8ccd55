"""One request of a browser: who looks, in which language and theme; whether a form is theirs."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.datastructures import FormData
from starlette.requests import Request

from afina.domain.accounts import Caller
from afina.errors import Forbidden, InvalidRequest, TooLarge, Unauthenticated
from afina.language.strings import Texts, chosen_language
from afina.service.chat import ChatService
from afina.service.completions import CompletionsService
from afina.service.oidc_provider import OidcProvider
from afina.service.platform import Platform
from afina.service.sessions import Session, form_token, resume_session
from afina.web.live import LiveJobs

SESSION_COOKIE: Final = "afina_session"
LANGUAGE_COOKIE: Final = "afina_language"
THEME_COOKIE: Final = "afina_theme"
TOKEN_HEADER: Final = "x-form-token"  # noqa: S105 - a header's name
TOKEN_FIELD: Final = "form_token"  # noqa: S105 - a field's name
THEMES: Final = ("auto", "light", "dark")
_SAFE: Final = frozenset({"GET", "HEAD"})
_MAX_FORM_FIELDS: Final = 400


@dataclass(frozen=True)
class Rooms:
    """What the pages are made over."""

    platform: Platform
    chat: ChatService
    completions: CompletionsService
    live: LiveJobs
    provider: Callable[[], OidcProvider] | None = None
    """Who vouches for people at the sign-in, where the settings name one."""


@dataclass(frozen=True)
class Visit:
    """A request with what is known of who sent it."""

    request: Request
    rooms: Rooms
    texts: Texts
    theme: str
    session: Session | None = None
    form_token: str = ""

    @property
    def platform(self) -> Platform:
        return self.rooms.platform

    @property
    def caller(self) -> Caller:
        """Who looks. Raises Unauthenticated."""
        if self.session is None:
            raise Unauthenticated("Sign in first.")
        return self.session.caller

    @property
    def is_partial(self) -> bool:
        """Whether htmx asks, and a fragment is enough."""
        return self.request.headers.get("hx-request") == "true"


async def visit_of(request: Request, rooms: Rooms) -> Visit:
    """Who sent this request; a session that is over is none."""
    cookies = request.cookies
    language = chosen_language(cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language"))
    theme = cookies.get(THEME_COOKIE, "auto")
    session, token = None, ""
    cookie = cookies.get(SESSION_COOKIE)
    if cookie:
        session, token = await to_thread.run_sync(_resume, rooms.platform, cookie)
    known = theme if theme in THEMES else "auto"
    return Visit(request, rooms, Texts(language), known, session, token)


def _resume(platform: Platform, cookie: str) -> tuple[Session | None, str]:
    try:
        session = resume_session(platform, cookie)
    except Unauthenticated:
        return None, ""
    return session, form_token(platform, session)


def check_origin(request: Request) -> None:
    """Refuses what another site's page sent in the reader's name. Raises Forbidden."""
    if request.method in _SAFE:
        return
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    host = request.headers.get("host", "")
    if origin is not None:
        if origin == "null" or urlsplit(origin).netloc != host:
            raise _foreign()
    elif site not in (None, "same-origin"):
        raise _foreign()


async def form_of(visit: Visit) -> FormData:
    """The fields of a form that carries its session's token. Raises Forbidden."""
    form = await visit.request.form(max_files=0, max_fields=_MAX_FORM_FIELDS)
    _check_token(visit, form.get(TOKEN_FIELD) or visit.request.headers.get(TOKEN_HEADER))
    return form


def check_token(visit: Visit) -> None:
    """For bodies that are no forms: the token is in a header. Raises Forbidden."""
    _check_token(visit, visit.request.headers.get(TOKEN_HEADER))


async def json_of(visit: Visit, most_bytes: int = 4 * 1024 * 1024) -> dict[str, Any]:
    """The body, a JSON object, with the session's token in its header. Raises Forbidden,
    InvalidRequest, TooLarge."""
    check_token(visit)
    body = bytearray()
    async for piece in visit.request.stream():
        body += piece
        if len(body) > most_bytes:
            raise TooLarge(f"This request is larger than {most_bytes // 1024 // 1024} MiB.")
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("The body is not a JSON object.")
    return found


def _check_token(visit: Visit, given: Any) -> None:
    if visit.session is None:
        raise Unauthenticated("Sign in first.")
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode(), visit.form_token.encode()
    ):
        raise Forbidden(
            "This form is not of your session.",
            code="form_token",
            remedy="Load the page again and send it once more.",
        )


def _foreign() -> Forbidden:
    return Forbidden("This request came from another site's page.", code="foreign_origin")
