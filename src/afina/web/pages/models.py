"""Models: what can be tuned, what was tuned and from what, with its card, files and uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import quote

from anyio import to_thread
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from afina.domain.codec import encode
from afina.domain.models import TunedModel
from afina.errors import AfinaError
from afina.service import bases, gate, gate_reports, jobs, models, usage
from afina.service.card import card_of
from afina.service.card_page import POLICY, card_page
from afina.service.card_readme import CARD_FILES
from afina.service.model_files import open_model_file, tune_files
from afina.service.models import ModelEntry
from afina.service.trained_prompt import trained_prompt
from afina.web.render import page
from afina.web.sayings import gate_words
from afina.web.visit import Visit, form_of

_PIECE: Final = 256 * 1024
_MOST_ANCESTORS: Final = 20


def show_list(visit: Visit) -> Response:
    """Tuned models first, then bases, refused ones with the reason."""
    entries = models.list_models(visit.platform, visit.caller)
    tuned = [entry for entry in entries if entry.tuned and entry.tuned.step is None]
    checkpoints = sum(1 for entry in entries if entry.tuned and entry.tuned.step is not None)
    found = bases.list_bases(visit.platform, admitted_only=False)
    values = {"tuned": tuned, "checkpoints": checkpoints, "bases": found}
    return page(visit, "models.html", values)


def show(visit: Visit) -> Response:
    """One model."""
    platform, caller = visit.platform, visit.caller
    entry = _entry(visit)
    tuned = entry.tuned
    sums = usage.summarize(platform, caller, usage.UsageQuery(None, None, ("model", "kind")))
    base = entry.base or (bases.get_base(platform, tuned.base_id) if tuned else None)
    told = card_of(platform, caller, entry.id) if tuned else encode(base)
    values: dict[str, Any] = {
        "entry": entry,
        "tuned": tuned,
        "base": base,
        "job": _job(visit, tuned),
        "lineage": _lineage(visit, entry),
        "files": sorted(tune_files(platform, tuned)) if tuned else [],
        "card_files": CARD_FILES,
        "prompt": trained_prompt(platform, caller, entry.id) if tuned else None,
        "uses": [group for group in sums if dict(group.group)["model"] == entry.id],
        "can_gate": True,
        "gate": gate_words(visit.texts, gate.gate_over(platform, tuned)) if tuned else None,
        "card": json.dumps(told, indent=2, ensure_ascii=False),
    }
    return page(visit, "model.html", values)


def card(visit: Visit) -> Response:
    """The model's card as a page to keep or print, in the reader's language."""
    found = card_of(visit.platform, visit.caller, visit.request.query_params.get("name", ""))
    shown = card_page(found, visit.texts.language)
    return HTMLResponse(shown, headers={"content-security-policy": POLICY})


def download(visit: Visit) -> Response:
    """One file of a tune."""
    entry = _entry(visit)
    name = visit.request.query_params.get("file", "")
    handle, size = open_model_file(visit.platform, visit.caller, entry, name, visit.texts.language)

    def pieces() -> Iterator[bytes]:
        with handle:
            while found := handle.read(_PIECE):
                yield found

    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    headers = {
        "content-disposition": f'attachment; filename="{safe}"',
        "content-length": str(size),
    }
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def remove(visit: Visit) -> Response:
    """Deletes a tuned model; its name must be typed, since nothing brings it back."""
    form = await form_of(visit)
    name = str(form.get("name") or "")
    await to_thread.run_sync(models.delete_model, visit.platform, visit.caller, name)
    return RedirectResponse("/models", 303)


async def ask_gate(visit: Visit) -> Response:
    """Lets the gate measure the model again."""
    return await _set(visit, gate_reports.ask_again)


async def release(visit: Visit) -> Response:
    """Lets the model's name answer."""
    return await _set(visit, gate.release)


async def hold(visit: Visit) -> Response:
    """Takes the model's name out of use."""
    return await _set(visit, gate.hold)


async def _set(visit: Visit, verb: Callable[..., Any]) -> Response:
    form = await form_of(visit)
    name = str(form.get("name") or "")
    await to_thread.run_sync(verb, visit.platform, visit.caller, name)
    return RedirectResponse(f"/models/show?name={quote(name, safe='')}", 303)


def _entry(visit: Visit) -> ModelEntry:
    name = visit.request.query_params.get("name", "")
    return models.get_model(visit.platform, visit.caller, name)


def _job(visit: Visit, tuned: TunedModel | None) -> Any:
    if tuned is None or tuned.job_id is None:
        return None
    try:
        return jobs.get_job(visit.platform, visit.caller, tuned.job_id)
    except AfinaError:
        return None  # the job was deleted; the model stays


def _lineage(visit: Visit, entry: ModelEntry) -> list[dict[str, Any]]:
    """From the base to this model: each tune with the method that made it."""
    found: list[dict[str, Any]] = []
    tuned = entry.tuned
    while tuned is not None and len(found) < _MOST_ANCESTORS:
        job = _job(visit, tuned)
        found.append({"name": tuned.name, "how": None if job is None else job.method})
        parent = None if job is None else job.parent
        if parent is None:
            found.append({"name": tuned.base_id, "how": None})
            break
        try:
            tuned = models.get_model(visit.platform, visit.caller, parent).tuned
        except AfinaError:
            found.append({"name": parent, "how": None})
            break
    return found[::-1]


ROUTES: Final = (
    ("GET", "/models", show_list),
    ("GET", "/models/show", show),
    ("GET", "/models/card", card),
    ("GET", "/models/file", download),
    ("POST", "/models/delete", remove),
    ("POST", "/models/gate", ask_gate),
    ("POST", "/models/release", release),
    ("POST", "/models/hold", hold),
)
