"""Data: bring a file, choose its columns, see what the check says beside each row, mend, save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from anyio import from_thread, to_thread
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from afina.data.rules.registry import BY_CODE
from afina.domain.findings import Finding
from afina.domain.jobs import Hyperparameters
from afina.errors import AfinaError, EngineFailed, InvalidRequest, Overloaded, Unavailable
from afina.language import numbers
from afina.service import bases, draft_rows, draft_views, drafts, encodings, files, stored
from afina.service.draft_files import Columns, Draft, can_be_rows
from afina.service.draft_rows import DraftRow, Verdict
from afina.service.files import FileQuery
from afina.service.job_request import METHODS
from afina.web.chats import plain_messages, readable_json, shown_messages
from afina.web.pages.tune_faults import MOST_EPOCHS
from afina.web.remarks import reason_in, remarks_in
from afina.web.render import page
from afina.web.visit import Visit, check_token, form_of, json_of

_PREVIEWED: Final = 3
_LISTED: Final = 200
_CELL: Final = 400
"""Characters of a text that the table gets; the editor gets all."""
_MARKED: Final = frozenset({"personal-data", "secret-in-row"})
"""Rules whose rows have a mark that names the kinds; the summary alone says the sentence."""
_PIECE: Final = 256 * 1024


def show(visit: Visit) -> Response:
    """Where files are brought, and what is here already."""
    kept = files.list_files(visit.platform, visit.caller, FileQuery(limit=_LISTED)).data
    found = drafts.list_drafts(visit.platform, visit.caller)
    answers = sum(stored.kept_models(visit.platform, visit.caller).values())
    return page(visit, "data.html", {"drafts": found, "files": kept, "answers": answers})


async def bring(visit: Visit) -> Response:
    """A file's bytes as the body, its name in the query; the answer says where its draft is."""
    check_token(visit)
    name = visit.request.query_params.get("name", "")
    stream = visit.request.stream()

    async def piece() -> bytes | None:
        return await anext(stream, None)

    def pieces() -> Iterator[bytes]:
        while (found := from_thread.run(piece)) is not None:
            yield found

    def keep() -> Draft:
        here = bases.list_bases(visit.platform)
        base = here[0].id if here else None
        return drafts.start_draft(visit.platform, visit.caller, pieces(), name, base)

    draft = await to_thread.run_sync(keep)
    return JSONResponse({"href": f"/data/{draft.id}"})


def show_draft(visit: Visit) -> Response:
    """One draft."""
    draft = _draft(visit)
    return page(visit, "draft.html", _shown(visit, draft))


async def choose(visit: Visit) -> Response:
    """Other columns, or another model to check by; answers the changed part of the page."""
    form = await form_of(visit)
    draft = await to_thread.run_sync(_draft, visit)
    names = ("user", "assistant", "system_column", "group", "order")
    given = {name: str(form.get(name) or "") or None for name in names}
    if given["group"] is None:
        given["order"] = None  # it has nothing to put in order
    chosen = Columns(**given, system=str(form.get("system") or "").strip() or None)
    base = str(form.get("base") or "") or None
    sheet = str(form.get("sheet") or "") or None
    encoding = str(form.get("encoding") or "") or None

    def change() -> Draft:
        found = draft
        if sheet is not None and sheet != found.sheet:
            return drafts.choose_sheet(visit.platform, visit.caller, draft.id, sheet)
        if encoding is not None and encoding != encodings.codec_of(found.encoding):
            return drafts.choose_encoding(visit.platform, visit.caller, draft.id, encoding)
        if base != found.base:
            found = drafts.choose_base(visit.platform, visit.caller, draft.id, base)
        if found.is_table and chosen != found.chosen and can_be_rows(found, chosen):
            found = drafts.choose_columns(visit.platform, visit.caller, draft.id, chosen)
        return found

    draft = await to_thread.run_sync(change)
    if not visit.is_partial:
        return RedirectResponse(f"/data/{draft.id}", 303)
    shown = await to_thread.run_sync(_shown, visit, draft)
    return page(visit, "parts/draft.html", shown)


def rows(visit: Visit) -> Response:
    """A window of rows as JSON, for the table."""
    draft = _draft(visit)
    asked = visit.request.query_params
    which = asked.get("which", "all")
    start, count = _whole(asked.get("start", "0")), _whole(asked.get("count", "100"))
    numbers = draft_rows.numbers_of(visit.platform, draft, which)
    window = numbers[start : start + min(count, draft_rows.MAX_WINDOW)]
    beside: dict[int, list[Finding]] = {}
    for finding in draft_rows.verdict_of(visit.platform, draft).findings:
        if finding.line is not None:
            beside.setdefault(finding.line, []).append(finding)
    found = draft_rows.read_rows(visit.platform, draft, window)
    whole = asked.get("whole") == "1"
    return JSONResponse(
        {
            "total": len(numbers),
            "rows": [_row(visit, row, beside.get(row.number, []), whole) for row in found],
        }
    )


def marks(visit: Visit) -> Response:
    """What moderation or the search for personal data says of a window of rows."""
    draft = _draft(visit)
    asked = visit.request.query_params
    numbers = draft_rows.numbers_of(visit.platform, draft, asked.get("which", "all"))
    start, count = _whole(asked.get("start", "0")), _whole(asked.get("count", "100"))
    window = numbers[start : start + min(count, draft_rows.MAX_WINDOW)]
    rows = [r for r in draft_rows.read_rows(visit.platform, draft, window) if not r.is_dropped]
    if asked.get("what") != "moderation":
        return JSONResponse({"marks": _named(visit, draft_views.personal_marks(rows))})
    try:
        found = draft_views.moderation_marks(visit.platform, rows)
    except (Unavailable, EngineFailed, Overloaded) as error:
        return JSONResponse({"marks": {}} | _unmoderated(visit, error))
    return JSONResponse({"marks": _named(visit, found)})


def _unmoderated(visit: Visit, error: AfinaError) -> dict[str, str]:
    """Why rows are not moderated, in the reader's words where they are known."""
    local = visit.platform.settings.moderation.backend == "local"
    code = error.code or ("engine" if isinstance(error, Unavailable) and local else "")
    key = f"data.unmoderated_{code}"
    if visit.texts.has(key):
        return {"reason": visit.texts(key), "lang": visit.texts.language}
    return {"reason": error.message, "lang": "en"}


def lengths(visit: Visit) -> Response:
    """How long the rows are, in bins."""
    found = draft_views.lengths_of(visit.platform, _draft(visit))
    return page(visit, "parts/lengths.html", {"found": found})


def estimate(visit: Visit) -> Response:
    """What a tune with the rows would take, for so many epochs."""
    draft = _draft(visit)
    verdict = draft_rows.verdict_of(visit.platform, draft)
    text = _epochs(visit.request.query_params.get("n_epochs"))
    if text is None:
        return page(visit, "parts/draft_estimate.html", {"most": MOST_EPOCHS})
    asked = Hyperparameters() if text == "auto" else Hyperparameters(n_epochs=int(text))
    found = draft_views.estimate_draft(visit.platform, draft, verdict, asked)
    return page(visit, "parts/draft_estimate.html", {"found": found})


def _epochs(given: object) -> str | None:
    """What was typed as a number of epochs; None where it is neither auto nor one."""
    text = str(given or "auto").strip().lower() or "auto"
    fits = text == "auto" or (text.isdecimal() and 1 <= int(text[:4]) <= MOST_EPOCHS)
    return text if fits else None


def summary(visit: Visit) -> Response:
    """What the check says in all, anew after an edit."""
    return page(visit, "parts/summary.html", _shown(visit, _draft(visit)))


async def edit(visit: Visit) -> Response:
    """Puts another row in the place of one."""
    draft_id, number = visit.request.path_params["id"], visit.request.path_params["row"]
    body = await json_of(visit)
    text = body.get("text")
    if not isinstance(text, str):
        raise InvalidRequest("The row's text is missing.", param="text")
    return await _edited(visit, draft_rows.edit_row, draft_id, _whole(number), text)


async def drop(visit: Visit) -> Response:
    """Leaves one row out, or all that have an error."""
    draft_id = visit.request.path_params["id"]
    body = await json_of(visit)
    numbers = body.get("rows")
    if numbers == "bad":
        draft = await to_thread.run_sync(_draft, visit)
        numbers = list(draft_rows.numbers_of(visit.platform, draft, "bad"))
    if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
        raise InvalidRequest("Which rows is not said.", param="rows")
    return await _edited(visit, draft_rows.drop_rows, draft_id, numbers)


async def undo(visit: Visit) -> Response:
    """Takes the last edit back."""
    check_token(visit)
    return await _edited(visit, draft_rows.undo, visit.request.path_params["id"])


async def redo(visit: Visit) -> Response:
    """Does it again."""
    check_token(visit)

    def again(*given: Any) -> Verdict:
        return draft_rows.undo(*given, again=True)

    return await _edited(visit, again, visit.request.path_params["id"])


async def save(visit: Visit) -> Response:
    """Makes a training file of the draft and goes on to tune with it."""
    form = await form_of(visit)
    name = str(form.get("name") or "training.jsonl").strip()
    draft_id = visit.request.path_params["id"]

    def keep() -> str:
        file = draft_rows.save_draft(visit.platform, visit.caller, draft_id, name)
        method = draft_views.method_of(visit.platform.blobs.path(file.sha256))
        other = "" if method == METHODS[0] else f"&method={method}"
        epochs = _epochs(form.get("n_epochs")) or "auto"
        return f"/tune?file={file.id}{other}" + ("" if epochs == "auto" else f"&n_epochs={epochs}")

    return RedirectResponse(await to_thread.run_sync(keep), 303)


async def remove(visit: Visit) -> Response:
    """Deletes a draft."""
    await form_of(visit)
    draft_id = visit.request.path_params["id"]
    await to_thread.run_sync(drafts.delete_draft, visit.platform, visit.caller, draft_id)
    return RedirectResponse("/data", 303)


async def remove_file(visit: Visit) -> Response:
    """Deletes a file."""
    await form_of(visit)
    file_id = visit.request.path_params["id"]
    await to_thread.run_sync(files.delete_file, visit.platform, visit.caller, file_id)
    return RedirectResponse("/data", 303)


async def open_file(visit: Visit) -> Response:
    """Begins a draft with the bytes of a file, which stays as it is; at the row that is named."""
    form = await form_of(visit)
    row = str(form.get("row") or "")
    place = f"#row-{_whole(row)}" if row else ""

    def begin() -> Draft:
        platform, caller = visit.platform, visit.caller
        file, handle = files.open_file(platform, caller, visit.request.path_params["id"])
        here = bases.list_bases(platform)
        name = file.filename if "." in file.filename else f"{file.filename}.jsonl"
        with handle:
            pieces = iter(lambda: handle.read(_PIECE), b"")
            base = here[0].id if here else None
            return drafts.start_draft(platform, caller, pieces, name, base)

    draft = await to_thread.run_sync(begin)
    return RedirectResponse(f"/data/{draft.id}{place}", 303)


def download(visit: Visit) -> Response:
    """The bytes of a file, never shown as a page."""
    file, handle = files.open_file(visit.platform, visit.caller, visit.request.path_params["id"])

    def pieces() -> Iterator[bytes]:
        with handle:
            while found := handle.read(_PIECE):
                yield found

    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in file.filename)
    whole = quote(file.filename, safe="")
    headers = {
        "content-disposition": f"attachment; filename=\"{name}\"; filename*=UTF-8''{whole}",
        "content-length": str(file.bytes),
    }
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def _edited(visit: Visit, change: Any, *given: Any) -> Response:
    verdict = await to_thread.run_sync(change, visit.platform, visit.caller, *given)
    return JSONResponse({"bad": verdict.rows_bad, "usable": verdict.rows_usable})


def _draft(visit: Visit) -> Draft:
    return drafts.get_draft(visit.platform, visit.caller, visit.request.path_params["id"])


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest("This is not a whole number.")
    return int(text)


def _shown(visit: Visit, draft: Draft) -> dict[str, Any]:
    platform = visit.platform
    verdict = draft_rows.verdict_of(platform, draft) if draft.is_ready else None
    first = draft_rows.read_rows(platform, draft, range(1, _PREVIEWED + 1))
    head = [] if draft.is_ready or not draft.is_table else drafts.table_head(platform, draft, 3)
    found = None
    if verdict is not None:
        found = draft_views.estimate_draft(platform, draft, verdict, Hyperparameters())
    sure = encodings.is_sure(draft.encoding) and draft.asked_encoding is None
    severities = {rule: BY_CODE[rule].severity.value for rule in verdict.counts} if verdict else {}
    return {
        "draft": draft,
        "encodings": [] if sure else encodings.offered(drafts.source_of(platform, draft)),
        "codec": encodings.codec_of(draft.encoding),
        "verdict": verdict,
        "found": found,
        "redacts": platform.settings.redact.enabled,
        "severities": severities,
        "remarks": remarks_in(visit.texts, draft.notes),
        "reason_in": partial(reason_in, visit.texts),
        "preview": [chat for row in first if (chat := shown_messages(row.value))],
        "head": [{name: str(value)[:80] for name, value in row.items()} for row in head],
        "bases": bases.list_bases(platform),
        "name": draft.filename.rpartition(".")[0] or draft.filename,
    }


def _row(visit: Visit, row: DraftRow, beside: list[Finding], whole: bool) -> dict[str, Any]:
    messages = plain_messages(row.value)
    shown: dict[str, Any] = {
        "n": row.number,
        "dropped": row.is_dropped,
        "edited": row.is_edited,
        "findings": [
            _finding(visit, finding)
            for finding in beside
            if not row.is_dropped and finding.rule not in _MARKED
        ],
    }
    if whole:
        told = {"text": readable_json(row.text)}
        return shown | told | ({} if messages is None else {"messages": messages})
    found = messages or shown_messages(row.value)
    if found is None:
        return shown | {"text": row.text[:_CELL]}
    return shown | {
        "messages": [{"role": m["role"], "content": m["content"][:_CELL]} for m in found]
    }


def _named(visit: Visit, found: Mapping[int, Mapping[str, float]]) -> dict[int, list[str]]:
    """Kinds and categories by the names that the reader knows them by."""

    def name(kind: str) -> str:
        key = f"mark.{kind.replace('/', '_').replace('-', '_')}"
        return visit.texts(key) if visit.texts.has(key) else kind.upper()

    return {number: [name(kind) for kind in kinds] for number, kinds in found.items()}


def _finding(visit: Visit, finding: Finding) -> dict[str, Any]:
    text = visit.texts(f"rule.{finding.rule.replace('-', '_')}")
    if finding.other_line is not None:
        other = numbers.number(visit.texts.language, finding.other_line)
        text = f"{visit.texts('data.like_row', n=other)} {text}"
    return {"rule": finding.rule, "severity": finding.severity.value, "text": text}


ROUTES: Final = (
    ("GET", "/data", show),
    ("POST", "/data", bring),
    ("GET", "/data/files/{id}/download", download),
    ("POST", "/data/files/{id}/delete", remove_file),
    ("POST", "/data/files/{id}/open", open_file),
    ("GET", "/data/{id}", show_draft),
    ("POST", "/data/{id}/columns", choose),
    ("GET", "/data/{id}/rows", rows),
    ("GET", "/data/{id}/summary", summary),
    ("GET", "/data/{id}/marks", marks),
    ("GET", "/data/{id}/lengths", lengths),
    ("GET", "/data/{id}/estimate", estimate),
    ("POST", "/data/{id}/rows/{row}", edit),
    ("POST", "/data/{id}/drop", drop),
    ("POST", "/data/{id}/undo", undo),
    ("POST", "/data/{id}/redo", redo),
    ("POST", "/data/{id}/save", save),
    ("POST", "/data/{id}/delete", remove),
)
