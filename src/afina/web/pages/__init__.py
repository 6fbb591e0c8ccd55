"""The pages, one module a noun, and the table of their routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response

from afina.web.pages import (
    answers,
    data,
    home,
    jobs,
    models,
    oidc,
    playground,
    prompt_table,
    settings,
    sign_in,
    tune,
    usage,
)
from afina.web.visit import Visit

Handler = Callable[[Visit], Response | Awaitable[Response]]

ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    *sign_in.ROUTES,
    *oidc.ROUTES,
    *home.ROUTES,
    *answers.ROUTES,  # before data, whose drafts lie below the same path
    *data.ROUTES,
    *tune.ROUTES,
    *jobs.ROUTES,
    *playground.ROUTES,
    *prompt_table.ROUTES,
    *models.ROUTES,
    *usage.ROUTES,
    *settings.ROUTES,
)
