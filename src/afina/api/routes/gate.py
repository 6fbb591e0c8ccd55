"""afina's own routes of the gate: a model's card, its release, and the abuse watch.

GET    /v1/afina/models/{name}/card      ?format=json|html|markdown&language=en|es|pt
POST   /v1/afina/models/{name}/gate      the gate measures the model again
POST   /v1/afina/models/{name}/release   a held model answers from now on
POST   /v1/afina/models/{name}/hold      a released model answers no more
GET    /v1/afina/watch                   what the abuse watch counted, by key and model
POST   /v1/afina/watch/{key}/release     a stopped key may ask again
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.responses import HTMLResponse, Response

from afina.api.answers import answer, listing
from afina.api.body import no_body_expected, object_of, read_body
from afina.api.call import Caller_
from afina.api.documents import ERRORS, documented
from afina.api.query import query
from afina.api.requests import NoQuery
from afina.domain.models import TunedModel
from afina.domain.watch import MASKED, UNSEEN, WatchTally
from afina.language.strings import chosen_language
from afina.service import gate, gate_reports, watch
from afina.service.card import card_of
from afina.service.card_page import POLICY, card_page
from afina.service.card_readme import card_readme
from afina.service.refusals import LaxWire, Wire, parse

router = APIRouter(prefix="/v1/afina", tags=["afina"], responses=ERRORS)
_NO_QUERY = Depends(query(NoQuery))


class CardQuery(LaxWire):
    """How a card is wanted."""

    format: Literal["json", "html", "markdown"] = "json"
    language: Literal["en", "es", "pt"] | None = None
    """Of page and README; by default what the Accept-Language header asks for, else English."""


class GateAsked(Wire):
    """POST /v1/afina/models/{name}/gate; without a body, the suite that the model had."""

    suite: Literal["default", "full"] | None = None


SHAPES = (CardQuery, GateAsked)


@router.get(
    "/models/{model:path}/card",
    summary="The card of a tuned model",
    openapi_extra=documented(query=CardQuery),
)
def show_card(
    call: Caller_, model: str, asked: Annotated[CardQuery, Depends(query(CardQuery))]
) -> Response:
    """Data, method, curves, gate, who released it, parity and licence; as JSON, or in English,
    Spanish or Portuguese as one page that needs nothing else, or as the README.md that travels
    with the weights, which names no key and no person."""
    card = card_of(call.platform, call.caller, model)
    if asked.format == "json":
        return answer(card)
    accepted = call.request.headers.get("accept-language")
    language = asked.language or chosen_language(None, accepted)
    if asked.format == "markdown":
        return Response(card_readme(card, language=language), media_type="text/markdown")
    return HTMLResponse(card_page(card, language), headers={"content-security-policy": POLICY})


@router.post(
    "/models/{model:path}/gate",
    summary="Measure a model again",
    openapi_extra=documented(body=GateAsked),
    dependencies=[_NO_QUERY],
)
async def ask_gate(call: Caller_, model: str) -> Response:
    """The gate measures a tuned model once more, or for the first time. Until it has, nothing
    changes; the audit log says who asked, and events and card what came of it."""
    raw = await read_body(call.request, call.parts.settings.max_body_bytes)
    asked = parse(GateAsked, object_of(raw) if raw else {})
    row = await to_thread.run_sync(
        gate_reports.ask_again, call.platform, call.caller, model, asked.suite
    )
    return answer(
        {
            "id": row.model,
            "object": "afina.model_gate",
            "status": row.status,
            "policy": row.policy,
            "suite": row.suite,
        }
    )


@router.post(
    "/models/{model:path}/release", summary="Release a held model", dependencies=[_NO_QUERY]
)
async def release(call: Caller_, model: str) -> Response:
    """The name answers from now on; the audit log says who let it."""
    await _no_body(call)
    made = await to_thread.run_sync(gate.release, call.platform, call.caller, model)
    return answer(_state(made))


@router.post("/models/{model:path}/hold", summary="Hold a model back", dependencies=[_NO_QUERY])
async def hold(call: Caller_, model: str) -> Response:
    """The name answers no more until it is released; the audit log says who held it."""
    await _no_body(call)
    made = await to_thread.run_sync(gate.hold, call.platform, call.caller, model)
    return answer(_state(made))


@router.get("/watch", summary="Show the abuse watch's tally", dependencies=[_NO_QUERY])
def show_watch(call: Caller_) -> Response:
    """How many questions and answers of each key were flagged by moderation, model by model, in
    the window of the settings, and what was done about it. Needs an admin key; holds no text."""
    found = watch.list_watch(call.platform, call.caller)
    return answer(listing([_tally(one) for one in found], has_more=False, ids=False))


@router.post(
    "/watch/{key_id}/release", summary="Let a stopped key ask again", dependencies=[_NO_QUERY]
)
async def release_key(call: Caller_, key_id: str) -> Response:
    """What it was counted for up to this hour counts no more; the audit log says who let it."""
    await _no_body(call)
    states = await to_thread.run_sync(watch.release, call.platform, call.caller, key_id)
    return answer(
        {
            "object": "afina.watch.released",
            "key_id": key_id,
            "models": sorted(state.model for state in states),
        }
    )


async def _no_body(call: Caller_) -> None:
    no_body_expected(await read_body(call.request, call.parts.settings.max_body_bytes))


def _tally(tally: WatchTally) -> dict[str, Any]:
    state = tally.state
    return {
        "object": "afina.watch.tally",
        "key_id": tally.key_id,
        "model": tally.model,
        "looked_at": tally.looked_at,
        "flagged": tally.flagged,
        "unseen": tally.counts.get(UNSEEN, 0),
        "masked": tally.counts.get(MASKED, 0),
        "categories": tally.categories,
        "state": None if state is None else state.state,
        "since": None if state is None else state.since,
    }


def _state(model: TunedModel) -> dict[str, str]:
    return {"id": model.name, "object": "afina.model_state", "state": model.state.value}
