"""The HTTP application: `create_app` composes routes, middleware and errors from lists.

Nothing happens at import: the database and the engine's client are opened when the server starts
(lifespan). The official clients speak to `/v1/...`; `/health` and `/docs` need no key.
"""

from __future__ import annotations

from fastapi import FastAPI

from afina.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; it opens and closes its own store and engine client."""
    raise NotImplementedError
