"""/v1/models: list, retrieve, delete. Names may hold `:` as they are and `/` percent-encoded."""

from __future__ import annotations

import asyncio
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response

from afina.api.answers import (
    DeletedObject,
    ModelExtension,
    ModelList,
    ModelObject,
    answer,
    deleted,
    model_object,
)
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.errors import AfinaError
from afina.service import models

_PATIENCE_S: Final = 1.0

router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    responses=ERRORS,
    dependencies=[Depends(query(NoQuery))],
)


@router.get("", summary="List models", responses={200: {"model": ModelList}})
def list_models(call: Caller_) -> Response:
    """The bases of this machine, and the project's tuned models and checkpoints; `afina.state` says
    which of them are held back and do not answer."""
    entries = models.list_names(call.platform, call.caller)
    found = [_shown(call, entry) for entry in entries]
    return answer({"object": "list", "data": found})


@router.get("/{model:path}", summary="Retrieve a model", responses={200: {"model": ModelObject}})
async def retrieve(call: Caller_, model: str) -> Response:
    """A model by its name. `afina.resident` says whether it is in the engine's memory now."""
    entry = await to_thread.run_sync(models.get_model, call.platform, call.caller, model)
    shown = _shown(call, entry)
    told = shown.get("afina") or ModelExtension()
    told["resident"] = await _resident(call, entry)
    shown["afina"] = told
    return answer(shown)


@router.delete(
    "/{model:path}", summary="Delete a tuned model", responses={200: {"model": DeletedObject}}
)
def delete(call: Caller_, model: str) -> Response:
    """Deletes a tuned model and its bytes; the job that made it stays."""
    models.delete_model(call.platform, call.caller, model)
    return answer(deleted(model, "model"))


async def _resident(call: Call, entry: models.ModelEntry) -> bool | None:
    try:
        said = await asyncio.wait_for(call.parts.engine.health(), _PATIENCE_S)
    except (TimeoutError, AfinaError):
        return None
    if entry.tuned is not None:
        return entry.tuned.manifest in said.adapters
    return entry.base is not None and entry.base.id in said.bases


def _shown(call: Call, entry: models.ModelEntry | models.ListedModel) -> ModelObject:
    missing = models.base_missing(call.platform, entry)
    return model_object(entry, models.shutdown_date(call.platform, entry), base_missing=missing)
