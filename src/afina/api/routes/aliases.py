"""/v1/afina/aliases: a project's own names for its tuned models, with their history."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from afina.api.answers import answer
from afina.api.body import no_body_expected, read_body, read_json
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.service import aliases
from afina.service.refusals import Wire, parse
from afina.store.aliases import AliasEntry

router = APIRouter(
    prefix="/v1/afina/aliases",
    tags=["afina"],
    responses=ERRORS,
    dependencies=[Depends(query(NoQuery))],
)


class AliasSet(Wire):
    """POST /v1/afina/aliases: a model to mean, a suffix to follow, or both."""

    name: Annotated[str, Field(min_length=1, max_length=96)]
    target: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    follows: Annotated[str, Field(min_length=1, max_length=64)] | None = None


SHAPES: tuple[type[BaseModel], ...] = (AliasSet,)


@router.get("", summary="List aliases")
def list_aliases(call: Caller_) -> Response:
    """What each name means now."""
    found = aliases.list_aliases(call.platform, call.caller)
    return answer({"object": "list", "data": [_alias(entry) for entry in found]})


@router.post("", summary="Set an alias", openapi_extra=documented(body=AliasSet))
async def set_alias(call: Caller_) -> Response:
    """With `follows`, the name moves to each new model of that suffix as it is released."""
    asked = parse(AliasSet, await read_json(call.request, call.parts.settings.max_body_bytes))
    made = await to_thread.run_sync(
        aliases.set_alias, call.platform, call.caller, asked.name, asked.target, asked.follows
    )
    return answer(_alias(made))


@router.get("/{name}", summary="The history of an alias")
def history(call: Caller_, name: str) -> Response:
    """What the name has meant, newest first."""
    found = aliases.alias_history(call.platform, call.caller, name)
    return answer({"object": "list", "data": [_alias(entry) for entry in found]})


@router.post("/{name}/back", summary="Let an alias mean what it meant before")
async def go_back(call: Caller_, name: str) -> Response:
    """It follows nothing until it is set again."""
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))
    entry = await to_thread.run_sync(aliases.go_back, call.platform, call.caller, name)
    return answer(_alias(entry))


@router.delete("/{name}", summary="Remove an alias")
def remove(call: Caller_, name: str) -> Response:
    """Its history stays."""
    return answer(_alias(aliases.remove_alias(call.platform, call.caller, name)))


def _alias(entry: AliasEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "afina.alias",
        "name": entry.name,
        "target": entry.target,
        "follows": entry.follows,
        "reason": entry.reason,
        "created_at": entry.created_at,
    }
