"""Signing in with a key or a one-time link (through a provider: `web.pages.oidc`), signing out, and
the choice of language and theme."""

from __future__ import annotations

from typing import Final

from anyio import to_thread
from starlette.responses import RedirectResponse, Response

from afina.errors import AfinaError, Unauthenticated
from afina.language.strings import LANGUAGES
from afina.service.sessions import SESSION_S, open_session, use_link
from afina.web.render import page
from afina.web.visit import (
    LANGUAGE_COOKIE,
    SESSION_COOKIE,
    THEME_COOKIE,
    THEMES,
    Visit,
    form_of,
)

_YEAR_S: Final = 365 * 24 * 3600
_MAX_SECRET: Final = 200


def show(visit: Visit) -> Response:
    """The form, or the place where the reader wanted to go if the session is open already."""
    target = inside(visit.request.query_params.get("next", "/"))
    if visit.session is not None:
        return RedirectResponse(target, 303)
    return _form(visit, target, None)


async def enter_with_key(visit: Visit) -> Response:
    """Opens a session for the owner of a key."""
    form = await visit.request.form(max_files=0, max_fields=10)
    target = inside(str(form.get("next", "/")))
    secret = str(form.get("key", ""))[:_MAX_SECRET]
    try:
        _, cookie = await to_thread.run_sync(open_session, visit.platform, secret)
    except AfinaError as error:
        return refused(visit, error, target, "sign_in.wrong_key")
    return entered(visit, cookie, target)


def enter_with_link(visit: Visit) -> Response:
    """Opens a session for whoever started the server."""
    if visit.session is not None:
        return RedirectResponse("/", 303)
    try:
        _, cookie = use_link(visit.platform, visit.request.query_params.get("token", ""))
    except AfinaError as error:
        return refused(visit, error, "/", "sign_in.wrong_link")
    return entered(visit, cookie, "/")


async def leave(visit: Visit) -> Response:
    """Ends the session in this browser."""
    await form_of(visit)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")
    return response


async def choose(visit: Visit) -> Response:
    """Keeps the language or theme in a cookie; needs no session."""
    form = await visit.request.form(max_files=0, max_fields=10)
    response = RedirectResponse(inside(str(form.get("next", "/"))), 303)
    for name, cookie, allowed in (
        ("language", LANGUAGE_COOKIE, LANGUAGES),
        ("theme", THEME_COOKIE, THEMES),
    ):
        value = form.get(name)
        if value in allowed:
            response.set_cookie(
                cookie, str(value), max_age=_YEAR_S, path="/", httponly=True, samesite="lax"
            )
    return response


def refused(visit: Visit, error: AfinaError, target: str, unknown: str | None = None) -> Response:
    """The form again, with what went wrong above it; `unknown`: the text for what opens nothing."""
    said = visit.texts(unknown) if unknown and isinstance(error, Unauthenticated) else None
    return _form(visit, target, error, said)


def _form(visit: Visit, target: str, error: AfinaError | None, said: str | None = None) -> Response:
    provider = visit.platform.settings.oidc
    shown = {"target": target, "error": error, "said": said, "provider": provider and provider.name}
    return page(visit, "sign_in.html", shown, 200 if error is None else error.status)


def entered(visit: Visit, cookie: str, target: str, expires_at: int | None = None) -> Response:
    """On to the page `target`, with the session's cookie."""
    response = RedirectResponse(target, 303)
    response.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=SESSION_S if expires_at is None else expires_at - visit.platform.now(),
        path="/",
        httponly=True,
        samesite="lax",
        secure=visit.request.url.scheme == "https",
    )
    return response


def inside(target: str) -> str:
    """A place of this site; anything that could lead out becomes the first page."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or not target.isprintable():
        return "/"
    return target


ROUTES: Final = (
    ("GET", "/sign-in", show),
    ("POST", "/sign-in", enter_with_key),
    ("GET", "/enter", enter_with_link),
    ("POST", "/sign-out", leave),
    ("POST", "/language", choose),
)
