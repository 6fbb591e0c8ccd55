"""The HTTP application: `create_app` composes routes, middleware and errors from lists.

Nothing happens at import: the database and the engine's client are opened when the server starts
(lifespan). The official clients speak to `/v1/...`; `/health` and `/docs` need no key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.routing import Route

from afina import __version__
from afina.api import batch_requests, documents, errors, requests, upload_requests, webhook_requests
from afina.api.call import Keyring, Parts
from afina.api.middleware import RequestMiddleware
from afina.api.plain_routes import plain_routes
from afina.api.routes import (
    aliases,
    batches,
    chat,
    completions,
    distill,
    extension,
    files,
    gate,
    health,
    jobs,
    metrics,
    models,
    networks,
    organization,
    permissions,
    responses,
    uploads,
    webhooks,
)
from afina.domain.clock import SYSTEM_CLOCK
from afina.domain.ids import SYSTEM_IDS
from afina.errors import AfinaError
from afina.service.chat import ChatService
from afina.service.completion_request import CompletionRequest
from afina.service.completions import CompletionsService
from afina.service.guard import GuardedEngine
from afina.service.keys import ensure_first_key
from afina.service.limits import RateLimiter
from afina.service.platform import Platform
from afina.service.responses import ResponsesService
from afina.serving.client import EngineClient
from afina.settings import Settings

ANSWERS: Final = (chat, completions, responses)
"""Routes that answer by the engine, whole or in pieces."""
_TIDY_EVERY_S: Final = 1.0
# They are asked in this order, so those of most requests come first.
ROUTERS: Final[tuple[APIRouter, ...]] = (
    jobs.router,
    files.router,
    chat.router,
    responses.router,
    distill.router,
    uploads.router,
    batches.router,
    permissions.router,
    aliases.router,
    webhooks.router,
    models.router,
    gate.router,
    extension.router,
    networks.router,
    *organization.ROUTERS,
    health.router,
    metrics.router,
)
SHAPES: Final[tuple[type[BaseModel], ...]] = (
    *chat.SHAPES,
    *responses.SHAPES,
    *distill.SHAPES,
    CompletionRequest,
    requests.JobCreate,
    requests.UploadForm,
    upload_requests.UploadCreate,
    upload_requests.PartForm,
    upload_requests.UploadComplete,
    *permissions.SHAPES,
    *aliases.SHAPES,
    batch_requests.BatchCreate,
    batch_requests.BatchListQuery,
    webhook_requests.WebhookCreate,
    webhook_requests.WebhookUpdate,
    webhook_requests.WebhookRotate,
    webhook_requests.WebhookTest,
    webhook_requests.WebhookListQuery,
    webhook_requests.DeliveryListQuery,
    requests.FileListQuery,
    requests.JobListQuery,
    requests.EventListQuery,
    requests.CheckpointListQuery,
    extension.KeyCreate,
    extension.UsageListQuery,
    extension.LedgerQuery,
    extension.FileOfQuery,
    *organization.SHAPES,
    *networks.SHAPES,
    *gate.SHAPES,
)
"""What the routes read, for the OpenAPI document."""
_DESCRIPTION: Final = (
    "OpenAI's fine-tuning API on your own machine. Fields that are not offered yet are refused by "
    "name; nothing is accepted and ignored."
)


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; it opens and closes its own store and engine client."""
    app = FastAPI(
        title="afina",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings),
    )
    app.add_middleware(RequestMiddleware, clock=SYSTEM_CLOCK, ids=SYSTEM_IDS)
    errors.install(app)
    for route in ANSWERS:
        app.router.routes.append(Route(route.PATH, route.ENDPOINT, methods=["POST"]))
    for router in ROUTERS:
        app.router.routes += plain_routes(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _lifespan(settings: Settings) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        platform = await to_thread.run_sync(_open, settings)
        try:
            engine = EngineClient(settings.engine_socket)
            limiter = RateLimiter(platform)
            guarded = GuardedEngine(platform, engine, limiter)
            app.state.parts = Parts(
                settings=settings,
                platform=platform,
                engine=engine,
                chat=ChatService(platform, guarded),
                completions=CompletionsService(platform, guarded, engine),
                responses=ResponsesService(platform, guarded),
                keyring=Keyring(platform),
                limiter=limiter,
            )
            tidying = asyncio.create_task(_keep_tidy(platform))
            yield
            tidying.cancel()
        finally:
            platform.close()

    return lifespan


async def _keep_tidy(platform: Platform) -> None:
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        with contextlib.suppress(AfinaError):  # busy or full: whoever writes is told
            await to_thread.run_sync(platform.database.tidy)


def _open(settings: Settings) -> Platform:
    platform = Platform.open(settings)
    ensure_first_key(platform)
    return platform


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        plain = {route.PATH: {"post": dict(route.OPERATION)} for route in ANSWERS}
        declared = APIRouter()
        for router in ROUTERS:
            declared.include_router(router)
        app.openapi_schema = documents.openapi(app, declared.routes, SHAPES, plain)
    return app.openapi_schema
