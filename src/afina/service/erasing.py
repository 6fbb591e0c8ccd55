"""Erasing one customer's rows: what holds them, and what was made of them.

A trace is a line of a file, a draft, a kept answer, or a job that trained on such a file, with its
models and everything that was tuned on from those. Weights cannot forget a row, so tunes are
deleted, and the files are written anew without the lines, ready to be tuned on again. What is not
found: rows whose file was deleted before (its run directory went with it), backups, and what left
this machine.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from afina.data.convert import ConvertOptions, open_table
from afina.data.lines import LineReader
from afina.data.readers.records import Record
from afina.domain.accounts import Caller
from afina.domain.files import Purpose, StoredFile
from afina.domain.jobs import Job
from afina.errors import AfinaError, InvalidRequest, NotFound
from afina.service.audit import note
from afina.service.draft_files import Draft
from afina.service.drafts import delete_draft, folder_of, list_drafts, source_of
from afina.service.files import FileQuery, delete_file, list_files, upload_file
from afina.service.jobs import cancel_job, delete_job
from afina.service.models import delete_model
from afina.service.platform import Platform
from afina.store import answers, jobs, models
from afina.store.answer_tables import RESPONSES, STORED_COMPLETIONS
from afina.store.database import Tx

_SHORTEST: Final = 3
_LONGEST_LINE: Final = 64 * 1024 * 1024
_PAGE: Final = 1000


@dataclass(frozen=True)
class FileTrace:
    """A file, and the numbers of its lines that match."""

    file: StoredFile
    lines: tuple[int, ...]
    rows: int
    """How many lines it has in all."""


@dataclass(frozen=True)
class Traces:
    """All that holds a customer's rows, or was made of them."""

    files: tuple[FileTrace, ...] = ()
    jobs: tuple[Job, ...] = ()
    models: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    drafts: tuple[Draft, ...] = ()

    @property
    def is_empty(self) -> bool:
        files = self.files or self.drafts
        return not (files or self.jobs or self.models or self.completions or self.responses)


@dataclass(frozen=True)
class Erased:
    """What became of the traces. `written` pairs old files with those that hold the rest;
    `waiting` are jobs that a worker still holds, which stop at their next step, and files that
    something else reads. `is_log_empty` is False where the database's log could not be emptied."""

    written: tuple[tuple[str, str | None], ...]
    waiting: tuple[str, ...]
    is_log_empty: bool = True


def find_traces(platform: Platform, caller: Caller, words: Sequence[str]) -> Traces:
    """What of the project holds any of the words, in any spelling of upper and lower case. Raises
    InvalidRequest for words that are too short to mean somebody."""
    wanted = [_plain(word) for word in words if word.strip()]
    if not wanted or min(len(word) for word in wanted) < _SHORTEST:
        raise InvalidRequest(
            f"What to look for must have at least {_SHORTEST} characters.",
            param="match",
            remedy="An e-mail address or a customer's number says more than a first name.",
        )
    found = [
        trace for file in _files(platform, caller) if (trace := _trace(platform, file, wanted))
    ]
    with platform.database.read() as tx:
        made = _jobs_of(tx, caller, {trace.file.id for trace in found})
        names = [m.name for m in _own_models(tx, caller) if m.job_id in {job.id for job in made}]
        completions = _kept(
            tx, STORED_COMPLETIONS, ("request", "answer", "metadata"), caller, wanted
        )
        responses = _kept(tx, RESPONSES, ("items", "document"), caller, wanted)
    drafts = tuple(d for d in list_drafts(platform, caller) if _in_draft(platform, d, wanted))
    return Traces(tuple(found), tuple(made), tuple(names), completions, responses, drafts)


def erase(platform: Platform, caller: Caller, traces: Traces) -> Erased:
    """Deletes the traces: jobs and models, then the lines. A file of rows to train on gets a
    successor that holds the others. A job that a worker holds is cancelled and waited for: ask
    again a little later."""
    waiting = [job.id for job in traces.jobs if not _ended(platform, caller, job)]
    for name in traces.models:
        try:
            delete_model(platform, caller, name)
        except NotFound:
            continue
    for job in traces.jobs:
        if job.id not in waiting:
            delete_job(platform, caller, job.id)
    for draft in traces.drafts:
        with suppress(NotFound):
            delete_draft(platform, caller, draft.id)
    written: list[tuple[str, str | None]] = []
    busy = {file for job in traces.jobs if job.id in waiting for file in _files_of(job)}
    for trace in traces.files:
        if trace.file.id in busy:
            continue
        rest = _rest(platform, caller, trace)
        try:
            delete_file(platform, caller, trace.file.id)
        except InvalidRequest:  # a batch reads it, or a job that was made this very moment
            waiting.append(trace.file.id)
            if rest is not None:
                delete_file(platform, caller, rest)
            continue
        written.append((trace.file.id, rest))
    with platform.database.write() as tx:
        for id in traces.completions:
            answers.delete_completion(tx, id)
        for id in traces.responses:
            answers.delete_response(tx, id)
        counts = {
            "files": len(written),
            "jobs": sum(job.id not in waiting for job in traces.jobs),
            "models": len(traces.models),
            "drafts": len(traces.drafts),
            "answers": len(traces.completions) + len(traces.responses),
        }
        note(platform, tx, caller, "data.erased", caller.project_id, **counts)
    return Erased(tuple(written), tuple(waiting), platform.database.forget())


def _files(platform: Platform, caller: Caller) -> Iterator[StoredFile]:
    after: str | None = None
    while True:
        page = list_files(platform, caller, FileQuery(limit=_PAGE, after=after))
        yield from page.data
        if not page.has_more:
            return
        after = page.data[-1].id


def _trace(platform: Platform, file: StoredFile, wanted: list[str]) -> FileTrace | None:
    lines = []
    rows = 0
    for line in LineReader(platform.blobs.path(file.sha256), _LONGEST_LINE):
        rows += not line.is_blank
        if line.raw is None or _holds(line.raw, wanted):
            lines.append(line.number)
    return FileTrace(file, tuple(lines), rows) if lines else None


def _in_draft(platform: Platform, draft: Draft, wanted: list[str]) -> bool:
    """Whether the file as it came, its rows or its edits hold a word. A file that cannot be read
    is taken as one that does."""
    folder = folder_of(platform, draft.id)
    made = (folder / name for name in ("rows.jsonl", "edits.json"))
    lines = (line.raw for path in made if path.exists() for line in LineReader(path, _LONGEST_LINE))
    if any(raw is None or _holds(raw, wanted) for raw in lines):
        return True
    try:
        return any(_says(values, wanted) for values in _values_of(platform, draft))
    except (AfinaError, OSError):
        return True


def _values_of(platform: Platform, draft: Draft) -> Iterator[object]:
    """Every cell of the file as it came, those of columns and sheets that no row is made of too."""
    path = source_of(platform, draft)
    for sheet in draft.sheets or (draft.sheet,):
        options = ConvertOptions(sheet=sheet, encoding=draft.asked_encoding)
        for found in open_table(path, options).records:
            if isinstance(found, Record):
                yield found.values


def _says(value: object, wanted: list[str]) -> bool:
    plain = _plain(" ".join(_texts(value)))
    return any(word in plain for word in wanted)


def _holds(raw: bytes, wanted: list[str]) -> bool:
    """Whether a line holds a word, as text or as JSON spells it. A line that is too long to be read
    is taken as one that does: better looked at than missed."""
    text = raw.decode("utf-8", errors="replace")
    if "\\" in text:
        with suppress(ValueError, RecursionError):  # what is no JSON is read as it stands
            text = " ".join(_texts(json.loads(text)))
    plain = _plain(text)
    return any(word in plain for word in wanted)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        try:
            inner = json.loads(value) if value[:1] in "{[" else None
        except (ValueError, RecursionError):
            inner = None
        if inner is not None:  # the arguments of a call are JSON in a text
            yield from _texts(inner)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _jobs_of(tx: Tx, caller: Caller, files: set[str]) -> list[Job]:
    """The jobs on these files, and those that go on from their models, oldest first."""
    found = {job.id: job for file in files for job in jobs.jobs_using_file(tx, file)}
    everything = _all_jobs(tx, caller)
    own = _own_models(tx, caller)
    while True:
        names = {model.name for model in own if model.job_id in found}
        more = {j.id: j for j in everything if j.parent in names and j.id not in found}
        if not more:
            return sorted(found.values(), key=lambda job: (job.created_at, job.id))
        found |= more


def _all_jobs(tx: Tx, caller: Caller) -> list[Job]:
    found: list[Job] = []
    after: str | None = None
    while True:
        page = jobs.list_jobs(tx, caller.project_id, after, _PAGE, None)
        found += page.data
        if not page.has_more:
            return found
        after = page.data[-1].id


def _own_models(tx: Tx, caller: Caller) -> list[Any]:
    return [
        m for m in models.list_models(tx, caller.project_id) if m.project_id == caller.project_id
    ]


def _kept(
    tx: Tx, table: Any, columns: tuple[str, ...], caller: Caller, wanted: list[str]
) -> tuple[str, ...]:
    query = select(table).where(table.c.project_id == caller.project_id)
    rows = tx.execute(query.execution_options(yield_per=100))
    return tuple(
        row.id for row in rows if any(_says(getattr(row, column), wanted) for column in columns)
    )


def _ended(platform: Platform, caller: Caller, job: Job) -> bool:
    """Whether the job is over, once it was asked to stop."""
    if job.status.is_terminal:
        return True
    return cancel_job(platform, caller, job.id).status.is_terminal


def _files_of(job: Job) -> tuple[str, ...]:
    return tuple(id for id in (job.training_file, job.validation_file) if id is not None)


def _rest(platform: Platform, caller: Caller, trace: FileTrace) -> str | None:
    """The id of a file with the other rows, where they are rows to train on and there are any."""
    if trace.file.purpose is not Purpose.FINE_TUNE or len(trace.lines) >= trace.rows:
        return None
    gone = set(trace.lines)
    reader = LineReader(platform.blobs.path(trace.file.sha256), _LONGEST_LINE)
    kept = (line.raw + b"\n" for line in reader if line.raw and line.number not in gone)
    return upload_file(platform, caller, kept, trace.file.filename, Purpose.FINE_TUNE.value).id
