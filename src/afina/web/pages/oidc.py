"""Signing in through a provider: away to it, and back."""

from __future__ import annotations

from typing import Final

from starlette.responses import RedirectResponse, Response

from afina.errors import AfinaError, NotFound
from afina.service import oidc
from afina.service.oidc_provider import OidcProvider
from afina.web.pages.sign_in import entered, inside, refused
from afina.web.visit import Visit

_COOKIE: Final = "afina_oidc"
_PATH: Final = "/sign-in"


def leave(visit: Visit) -> Response:
    """Sends the browser to the provider."""
    target = inside(visit.request.query_params.get("next", "/"))
    if visit.session is not None:
        return RedirectResponse(target, 303)
    try:
        begun = oidc.begin(visit.platform, _provider(visit), _back(visit), target)
    except AfinaError as error:
        return refused(visit, error, target)
    response = RedirectResponse(begun.address, 303)
    response.set_cookie(
        _COOKIE,
        begun.cookie,
        max_age=oidc.BEGUN_S,
        path=_PATH,
        httponly=True,
        samesite="lax",  # it must come along when the provider sends the browser back
        secure=visit.request.url.scheme == "https",
    )
    return response


def come_back(visit: Visit) -> Response:
    """Opens a session for whoever the provider vouches for."""
    try:
        found = oidc.finish(
            visit.platform,
            _provider(visit),
            _back(visit),
            visit.request.query_params,
            visit.request.cookies.get(_COOKIE, ""),
        )
    except AfinaError as error:
        response = refused(visit, error, "/")
    else:
        response = entered(visit, found.cookie, found.target, found.session.expires_at)
    response.delete_cookie(_COOKIE, path=_PATH, httponly=True, samesite="lax")
    return response


def _provider(visit: Visit) -> OidcProvider:
    provider = visit.rooms.provider
    if provider is None:
        raise NotFound("No sign-in provider is set up here.")
    return provider()


def _back(visit: Visit) -> str:
    """Where the provider sends the browser. It compares this with what it was told beforehand, so a
    forged Host header leads nowhere."""
    settings = visit.platform.settings.oidc
    base = settings.public_url if settings is not None else None
    return (base or str(visit.request.base_url)).rstrip("/") + oidc.CALLBACK


ROUTES: Final = (
    ("GET", "/sign-in/oidc", leave),
    ("GET", oidc.CALLBACK, come_back),
)
