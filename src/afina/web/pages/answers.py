"""Answers that programs kept (`store: true`): looked through, deleted, made rows of a draft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from anyio import to_thread
from starlette.responses import RedirectResponse, Response

from afina.errors import InvalidRequest
from afina.service import bases, drafts, stored
from afina.service.draft_files import Draft
from afina.service.stored import CompletionQuery, StoredCompletion
from afina.web.render import page
from afina.web.visit import Visit, form_of

_SHOWN: Final = 50
_TEXT: Final = 400
"""Characters of a text that the list shows; a draft gets all."""
_BETWEEN: Final = "="
"""Between key and value of a label, as a link carries it."""


def show(visit: Visit) -> Response:
    """What was asked and answered, newest first, of a model or with a label."""
    asked = visit.request.query_params
    query = _query(asked, asked.get("after"))
    found = stored.list_completions(visit.platform, visit.caller, query)
    model, label = asked.get("model", ""), asked.get("label", "")
    models = dict(stored.kept_models(visit.platform, visit.caller))
    kept = stored.kept_labels(visit.platform, visit.caller)
    labels = [f"{key}{_BETWEEN}{value}" for key, value in kept]
    if model:
        models.setdefault(model, 0)  # what is chosen stays in sight when its last answer is gone
    if label and label not in labels:
        labels.append(label)
    values = {
        "answers": [_shown(one) for one in found.data],
        "more": found.data[-1].id if found.has_more else None,
        "models": models,
        "labels": labels,
        "model": model,
        "label": label,
        "after": asked.get("after", ""),
    }
    return page(visit, "answers.html", values)


async def begin(visit: Visit) -> Response:
    """Makes a draft of all that the filter picks out, not only of those that a page shows."""
    form = await form_of(visit)
    query = _query({name: str(form.get(name) or "") for name in ("model", "label")})

    def make() -> Draft:
        rows, left_out = stored.training_rows(visit.platform, visit.caller, query)
        here = bases.list_bases(visit.platform)
        base = here[0].id if here else None
        return drafts.start_draft(
            visit.platform, visit.caller, rows, "answers.jsonl", base, left_out
        )

    draft = await to_thread.run_sync(make)
    return RedirectResponse(f"/data/{draft.id}", 303)


async def remove(visit: Visit) -> Response:
    """Deletes a kept answer; the reader stays where they were in the list."""
    form = await form_of(visit)
    id = visit.request.path_params["id"]
    await to_thread.run_sync(stored.delete_completion, visit.platform, visit.caller, id)
    place = {name: str(form.get(name) or "") for name in ("model", "label", "after")}
    chosen = urlencode({name: value for name, value in place.items() if value})
    return RedirectResponse(f"/data/answers?{chosen}" if chosen else "/data/answers", 303)


def _query(asked: Mapping[str, str], after: str | None = None) -> CompletionQuery:
    key, between, value = asked.get("label", "").partition(_BETWEEN)
    if key and not between:
        raise InvalidRequest("A label is a key, an equals sign and a value.", param="label")
    return CompletionQuery(
        model=asked.get("model") or None,
        metadata={key: value} if between else None,
        after=after,
        limit=_SHOWN,
        ascending=False,
    )


def _shown(kept: StoredCompletion) -> dict[str, Any]:
    messages = stored.message_documents(kept)
    users = [m["content"] for m in messages if m["role"] == "user" and m["content"]]
    choice = kept.answer["choices"][0]
    calls = [call["function"]["name"] for call in choice["message"].get("tool_calls") or ()]
    answer = choice["message"]["content"] or ", ".join(f"{name}()" for name in calls)
    return {
        "id": kept.id,
        "created_at": kept.created_at,
        "model": kept.model,
        "asked": _cut(users[-1] if users else ""),
        "answered": _cut(answer),
        "is_cut": choice["finish_reason"] == "length",
        "labels": [f"{key}{_BETWEEN}{value}" for key, value in kept.metadata.items()],
    }


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"


ROUTES: Final = (
    ("GET", "/data/answers", show),
    ("POST", "/data/answers/draft", begin),
    ("POST", "/data/answers/{id}/delete", remove),
)
