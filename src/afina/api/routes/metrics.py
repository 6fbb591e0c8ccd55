"""/metrics: what Prometheus reads of the engine. For keys that manage the organization."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from afina.api.call import Caller_
from afina.api.documents import ERRORS
from afina.service.audit import require_admin
from afina.serving.metrics import CONTENT_TYPE
from afina.serving.restarts import Restarts

router = APIRouter(tags=["health"], responses=ERRORS)


@router.get(
    "/metrics",
    summary="Metrics of the engine",
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(call: Caller_) -> Response:
    """Queue, batch, cache, tokens and times to the first token, by base and tune. Tunes of every
    project are counted, so the key must manage the organization."""
    require_admin(call.caller)
    restarts = Restarts.read(call.parts.settings.engine_folder)
    said = await call.parts.engine.metrics()
    return Response(said + restarts.metrics(), media_type=CONTENT_TYPE)
