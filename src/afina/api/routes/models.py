"""/v1/models: list, retrieve, delete. Names may hold `:` as they are and `/` percent-encoded."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from afina.api.answers import (
    DeletedObject,
    ListObject,
    ModelObject,
    answer,
    deleted,
    model_object,
)
from afina.api.call import Call, Caller_
from afina.api.documents import ERRORS
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.service import models

router = APIRouter(
    prefix="/v1/models",
    tags=["models"],
    responses=ERRORS,
    dependencies=[Depends(query(NoQuery))],
)


@router.get("", summary="List models", responses={200: {"model": ListObject}})
def list_models(call: Caller_) -> Response:
    """The bases of this machine, and the project's tuned models and checkpoints."""
    entries = models.list_models(call.platform, call.caller)
    found = [_shown(call, entry) for entry in entries]
    return answer({"object": "list", "data": found})


@router.get("/{model:path}", summary="Retrieve a model", responses={200: {"model": ModelObject}})
def retrieve(call: Caller_, model: str) -> Response:
    """A model by its name."""
    return answer(_shown(call, models.get_model(call.platform, call.caller, model)))


@router.delete(
    "/{model:path}", summary="Delete a tuned model", responses={200: {"model": DeletedObject}}
)
def delete(call: Caller_, model: str) -> Response:
    """Deletes a tuned model and its bytes; the job that made it stays."""
    models.delete_model(call.platform, call.caller, model)
    return answer(deleted(model, "model"))


def _shown(call: Call, entry: models.ModelEntry) -> ModelObject:
    return model_object(entry, models.shutdown_date(call.platform, entry))
