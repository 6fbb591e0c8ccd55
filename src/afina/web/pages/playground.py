"""The playground: one prompt to up to three models, side by side, streamed.

The browser sends what the API takes, and the same function answers it; only the way in differs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from anyio import to_thread
from starlette.responses import JSONResponse, Response, StreamingResponse

from afina.domain.models import ModelState
from afina.errors import AfinaError, InvalidRequest
from afina.service import models
from afina.service.chat_answer import error_event
from afina.service.chat_request import ChatRequest
from afina.service.refusals import parse
from afina.service.trained_prompt import trained_prompt
from afina.web.refusals import as_json
from afina.web.render import page
from afina.web.visit import Visit, json_of

MOST_MODELS: Final = 3


def show(visit: Visit) -> Response:
    """The page; the models to ask stand in the query."""
    return page(visit, "playground.html", chosen_models(visit))


def chosen_models(visit: Visit) -> dict[str, Any]:
    """The models there are, and those that the query names; else the newest tune and its base."""
    entries = models.list_models(visit.platform, visit.caller)
    names = [entry.id for entry in entries]
    named = visit.request.query_params.getlist("model")
    asked = [name for name in named if name in names]
    if not asked:
        whole = [e.id for e in entries if e.tuned is not None and e.tuned.step is None]
        asked = [name for name in (_base(entries, whole), *whole[:1]) if name]
    return {
        "bases": [entry.id for entry in entries if entry.base],
        "tuned": [entry.id for entry in entries if entry.tuned],
        "silent": {
            entry.id: entry.tuned.state.value
            for entry in entries
            if entry.tuned is not None and entry.tuned.state is not ModelState.RELEASED
        },
        "asked": asked[:MOST_MODELS],
        "gone": [name for name in named if name not in names],
        "most": MOST_MODELS,
    }


def about(visit: Visit) -> Response:
    """With which system prompt a model was trained."""
    name = visit.request.query_params.get("model", "")
    prompt = trained_prompt(visit.platform, visit.caller, name)
    return JSONResponse({"system": prompt})


async def answer(visit: Visit) -> Response:
    """An answer as the API streams it. Raises what the API would refuse."""
    asked = parse(ChatRequest, await json_of(visit))
    if not asked.stream:
        raise InvalidRequest("The playground streams.", param="stream")
    chat = visit.rooms.chat
    request_id: str = visit.request.scope["afina.request_id"]
    prepared = await to_thread.run_sync(chat.prepare, visit.caller, asked, request_id)
    stream = chat.stream(prepared)
    # What the engine refuses is raised before the first event: it is an answer with its status.
    first = await anext(stream)

    async def events() -> AsyncIterator[bytes]:
        async with aclosing(stream):
            yield first
            try:
                async for event in stream:
                    yield event
            except AfinaError as error:
                yield error_event({"error": as_json(visit.texts, error)})

    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _base(entries: list[models.ModelEntry], tuned: list[str]) -> str | None:
    """The base of the newest tune, else the first base."""
    for entry in entries:
        if tuned and entry.id == tuned[0] and entry.tuned is not None:
            return entry.tuned.base_id
    found: list[Any] = [entry.id for entry in entries if entry.base]
    return found[0] if found else None


ROUTES: Final = (
    ("GET", "/playground", show),
    ("GET", "/playground/about", about),
    ("POST", "/playground/answer", answer),
)
