"""What a route gets: the platform's parts, and the caller whose key the request carries.

A key that was found stays known for a second (`service.lately`), so that a stream of requests does
not ask the store for each; a revoked key therefore dies within that second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from afina.api.middleware import CALLER, REQUEST_ID
from afina.domain.accounts import Caller, KeyKind
from afina.domain.scopes import allowed, needed_scope
from afina.errors import Forbidden, Unauthenticated
from afina.service.audit import require_admin
from afina.service.chat import ChatService
from afina.service.completions import CompletionsService
from afina.service.keys import authenticate
from afina.service.lately import Lately
from afina.service.limits import RateLimiter
from afina.service.platform import Platform
from afina.service.responses import ResponsesService
from afina.serving.client import EngineClient
from afina.settings import Settings

_SECRET_MOST: Final = 200
_FOR_ADMINS: Final = (
    "/v1/organization",
    "/v1/fine_tuning/checkpoints/",
    "/v1/afina/watch",
    "/metrics",
)


@dataclass(frozen=True)
class Parts:
    """What the application is made of while it runs."""

    settings: Settings
    platform: Platform
    engine: EngineClient
    chat: ChatService
    completions: CompletionsService
    responses: ResponsesService
    keyring: Keyring
    limiter: RateLimiter


class Keyring:
    """Whose key it is, remembered for a second."""

    def __init__(self, platform: Platform) -> None:
        self._known: Lately[str, Caller] = Lately(partial(authenticate, platform), platform.clock)

    async def caller(self, scope: Scope) -> Caller:
        """The caller of a request. Raises Unauthenticated, and Forbidden where the key's scopes or
        its kind do not reach so far."""
        secret, organization, project = _credentials(scope)
        caller = await self._known.get(secret)
        _refuse_other(organization, caller.organization_id, "Organization")
        _refuse_other(project, caller.project_id, "Project")
        _refuse_outside(caller, scope["method"], scope["path"])
        scope[CALLER] = caller
        return caller

    def forget(self, key_id: str) -> None:
        """From now on the key is looked up again: a revoked one opens nothing more here."""
        self._known.forget(lambda caller: caller.key_id == key_id)

    def forget_all(self) -> None:
        """From now on every key is looked up again."""
        self._known.forget()


@dataclass(frozen=True)
class Call:
    """One request of a known caller."""

    request: Request
    parts: Parts
    caller: Caller

    @property
    def platform(self) -> Platform:
        return self.parts.platform

    @property
    def request_id(self) -> str:
        return str(self.request.scope[REQUEST_ID])


def parts_of(scope: Scope) -> Parts:
    """The parts of the application that a request came to."""
    parts: Parts = scope["app"].state.parts
    return parts


async def call_of(request: Request) -> Call:
    """The request with its caller. Raises Unauthenticated."""
    parts = parts_of(request.scope)
    return Call(request, parts, await parts.keyring.caller(request.scope))


Caller_ = Annotated[Call, Depends(call_of)]
"""The annotation of a route's first parameter."""


def _credentials(scope: Scope) -> tuple[str, str, str]:
    secret = organization = project = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, secret = value.decode("latin-1").partition(" ")
            if kind.lower() != "bearer":
                raise Unauthenticated("The Authorization header must read 'Bearer <API key>'.")
        elif name == b"openai-organization":
            organization = value.decode("latin-1")
        elif name == b"openai-project":
            project = value.decode("latin-1")
    secret = secret.strip()
    if not secret:
        raise Unauthenticated(
            "You didn't provide an API key. Send it as 'Authorization: Bearer <API key>'.",
            remedy="The first key is in the file api-key of the data directory.",
        )
    if len(secret) > _SECRET_MOST or not secret.isascii():
        raise Unauthenticated("Incorrect API key provided.")
    return secret, organization, project


def _refuse_outside(caller: Caller, method: str, path: str) -> None:
    if path.startswith(_FOR_ADMINS):
        require_admin(caller)  # the verbs ask again: they have other doors, such as the dashboard
        return
    if caller.kind is KeyKind.ADMIN:
        raise Forbidden(
            "An admin key manages the organization; it opens no files, jobs or models.",
            code="insufficient_permissions",
            remedy="Use a key of the project.",
        )
    needed = needed_scope(method, path)
    if not allowed(caller.scopes, needed):
        raise Forbidden(
            f"You have insufficient permissions for this operation. Missing scopes: {needed}.",
            code="insufficient_permissions",
            remedy="An admin can widen the key's scopes.",
        )


def _refuse_other(given: str, own: str, name: str) -> None:
    if given and given != own:
        raise Unauthenticated(
            f"The OpenAI-{name} header does not name the {name.lower()} of this API key.",
            code=f"mismatched_{name.lower()}",
            remedy=f"Leave the header out (the client's `{name.lower()}` setting).",
        )
