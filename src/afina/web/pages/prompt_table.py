"""The playground as a table: a file of prompts to up to three models, with scores; and rows that
somebody keeps for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from anyio import from_thread, to_thread
from starlette.responses import JSONResponse, Response

from afina.errors import InvalidRequest
from afina.service import collected_rows, files, prompt_files
from afina.service.answer_scores import score_answer
from afina.service.files import FileQuery
from afina.service.prompt_files import PromptFile
from afina.web.pages.playground import chosen_models
from afina.web.render import page
from afina.web.visit import Visit, check_token, json_of

_LISTED: Final = 100
_PIECE: Final = 256 * 1024


def show(visit: Visit) -> Response:
    """The page, with the project's training files to take prompts from."""
    query = FileQuery(purpose="fine-tune", limit=_LISTED)
    kept = files.list_files(visit.platform, visit.caller, query).data
    values = {"files": kept, "limit": prompt_files.MOST_PROMPTS}
    return page(visit, "table.html", chosen_models(visit) | values)


async def prompts(visit: Visit) -> Response:
    """The prompts of a file that is sent as the body; columns may be named in the query."""
    check_token(visit)
    stream = visit.request.stream()

    async def piece() -> bytes | None:
        return await anext(stream, None)

    def pieces() -> Iterator[bytes]:
        while (found := from_thread.run(piece)) is not None:
            yield found

    asked = visit.request.query_params
    name = asked.get("name", "")

    def read() -> PromptFile:
        return prompt_files.read_prompts(pieces(), name, asked.get("prompt"), asked.get("expected"))

    return _told(await to_thread.run_sync(read))


def prompts_of_file(visit: Visit) -> Response:
    """The prompts of a file that the project has already."""
    platform, caller = visit.platform, visit.caller
    file, handle = files.open_file(platform, caller, visit.request.path_params["id"])
    name = file.filename if "." in file.filename else f"{file.filename}.jsonl"
    with handle:
        return _told(prompt_files.read_prompts(iter(lambda: handle.read(_PIECE), b""), name))


async def score(visit: Visit) -> Response:
    """How likely a model finds the last message of a chat."""
    body = await json_of(visit)
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not isinstance(messages, list):
        raise InvalidRequest("Give a model and its messages.", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("A message is an object.", param="messages")
    request_id: str = visit.request.scope["afina.request_id"]
    found = await score_answer(visit.rooms.completions, visit.caller, model, messages, request_id)
    told = {"logprob": found.logprob, "tokens": found.tokens, "per_token": found.per_token}
    return JSONResponse(told)


def collections(visit: Visit) -> Response:
    """The drafts that a row can be added to."""
    found = collected_rows.collections(visit.platform, visit.caller)
    told = [{"id": d.id, "name": d.filename, "rows": d.rows} for d in found]
    return JSONResponse({"drafts": told})


async def keep(visit: Visit) -> Response:
    """Adds a chat to a draft, or begins one."""
    body = await json_of(visit)
    messages, draft = body.get("messages"), body.get("draft")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise InvalidRequest("The row has no messages.", param="messages")
    if draft is not None and not isinstance(draft, str):
        raise InvalidRequest("This is not a draft's id.", param="draft")
    verb: Callable[..., Any] = collected_rows.collect_row
    kept = await to_thread.run_sync(verb, visit.platform, visit.caller, messages, draft)
    told = {"id": kept.id, "name": kept.filename, "rows": kept.rows, "href": f"/data/{kept.id}"}
    return JSONResponse(told)


def _told(found: PromptFile) -> Response:
    return JSONResponse(
        {
            "prompts": [
                {"messages": list(one.messages), "expected": one.expected} for one in found.prompts
            ],
            "columns": found.columns,
            "prompt": found.prompt_column,
            "expected": found.expected_column,
            "rows": found.rows,
            "passed_over": found.passed_over,
            "beyond": found.beyond,
        }
    )


ROUTES: Final = (
    ("GET", "/playground/table", show),
    ("POST", "/playground/table/prompts", prompts),
    ("GET", "/playground/table/files/{id}", prompts_of_file),
    ("POST", "/playground/table/score", score),
    ("GET", "/playground/rows", collections),
    ("POST", "/playground/rows", keep),
)
