"""Drafts: files that somebody prepares in the browser, before they become training files.

The file that came is never changed: `draft_files` has it, and the rows that the chosen columns make
of it. `draft_rows` has the rows' findings and the edits, and makes a file of the project of them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from afina.data.convert import ConvertOptions, open_table
from afina.data.readers.records import Record
from afina.data.sheets import open_likely
from afina.domain.accounts import Caller
from afina.errors import AfinaError, InvalidRequest, NotFound
from afina.service import encodings
from afina.service.draft_edits import (
    History,
    locked,
    read_history,
    under_system,
    write_history,
)
from afina.service.draft_files import (
    Columns,
    Draft,
    forget_rows,
    keep_bytes,
    make_rows,
    read_draft,
    read_source,
    write_draft,
)
from afina.service.platform import Platform

PREFIX: Final = "draft-"
KEPT_S: Final = 30 * 24 * 3600
"""A draft that nobody touched for so long is removed."""
_ID: Final = re.compile(r"draft-[A-Za-z0-9]{24}")
_ENDING: Final = re.compile(r"\.[A-Za-z0-9]{1,8}")
_MAX_NAME: Final = 255
_FORMAT: Final = re.compile(r"\b([Gg])ive --format (\w+)")
_OPTION: Final = re.compile(r" \(--[^)]*\)")
_BRING: Final = "Save it as Excel or Parquet, or as CSV or JSONL in UTF-8, and bring it again."


def start_draft(
    platform: Platform,
    caller: Caller,
    source: Iterable[bytes],
    filename: str,
    base: str | None,
    left_out: Mapping[str, int] | None = None,
) -> Draft:
    """Keeps the bytes and reads them as the name says; columns whose names say what they are, are
    chosen. `left_out`: what was no row before the bytes were made, by reason. Raises
    DataUnreadable, InvalidRequest, TooLarge."""
    if not 1 <= len(filename) <= _MAX_NAME or not filename.isprintable():
        raise InvalidRequest("The file's name must be 1 to 255 printable characters.", param="name")
    id_ = platform.ids.new(PREFIX)
    folder = _root(platform) / id_
    folder.mkdir(parents=True, mode=0o700)
    ending = Path(filename).suffix
    name = "source" + (ending.lower() if _ENDING.fullmatch(ending) else "")
    try:
        with _told_by_name(name, filename):
            size = keep_bytes(folder / name, source, platform.settings.max_upload_bytes)
            draft = Draft(id_, caller.project_id, filename, platform.now(), size, name, base=base)
            draft = read_source(folder, draft, *open_likely(folder / name))
        if left_out:
            draft = replace(draft, dropped={**draft.dropped, **left_out})
        write_draft(folder, draft)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return draft


def get_draft(platform: Platform, caller: Caller, draft_id: str) -> Draft:
    """Raises NotFound."""
    try:
        draft = read_draft(folder_of(platform, draft_id))
    except FileNotFoundError:
        raise _gone(draft_id) from None
    if draft.project_id != caller.project_id:
        raise _gone(draft_id)
    return draft


def list_drafts(platform: Platform, caller: Caller) -> list[Draft]:
    """The project's drafts, newest first. Removes what nobody touched for `KEPT_S`."""
    root = _root(platform)
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        try:
            if platform.clock.now() - (folder / "draft.json").stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            found.append(get_draft(platform, caller, folder.name))
        except (OSError, NotFound, ValueError):
            continue  # half made, damaged or another project's
    return sorted(found, key=lambda draft: (draft.created_at, draft.id), reverse=True)


def choose_columns(platform: Platform, caller: Caller, draft_id: str, chosen: Columns) -> Draft:
    """Makes the rows anew from other columns; the edits on the old rows go, unless nothing but the
    system prompt is another. Raises InvalidRequest for columns that are not there."""
    with changing(platform, caller, draft_id) as (folder, draft):
        kept = History()
        if replace(draft.chosen, system=chosen.system) == chosen:
            kept = under_system(read_history(folder), draft.chosen.system, chosen.system)
        draft = make_rows(folder, replace(draft, chosen=chosen))
        forget_rows(folder)
        write_history(folder, kept)
        write_draft(folder, draft)
    return draft


def choose_sheet(platform: Platform, caller: Caller, draft_id: str, sheet: str) -> Draft:
    """Reads another sheet of the workbook; rows and edits of the old one go. Raises
    InvalidRequest, DataUnreadable."""
    with changing(platform, caller, draft_id) as (folder, draft):
        if sheet not in draft.sheets:
            told = f"There is no sheet {sheet[:64]!r} in this workbook."
            raise InvalidRequest(told, param="sheet")
        source = open_table(folder / draft.source, ConvertOptions(sheet=sheet))
        fresh = replace(draft, chosen=Columns(), is_table=False, rows=0, dropped={})
        draft = read_source(folder, fresh, source, draft.sheets)
        forget_rows(folder)
        write_draft(folder, draft)
    return draft


def choose_encoding(platform: Platform, caller: Caller, draft_id: str, encoding: str) -> Draft:
    """Reads the bytes as another encoding; rows and edits of the old reading go, and columns that
    still have their names stay chosen. Raises InvalidRequest, DataUnreadable."""
    if encoding not in encodings.NAMES:
        raise InvalidRequest(f"{encoding[:64]!r} is not offered here.", param="encoding")
    with changing(platform, caller, draft_id) as (folder, draft):
        source = open_table(folder / draft.source, ConvertOptions(encoding=encoding))
        fresh = replace(
            draft, chosen=Columns(), is_table=False, rows=0, dropped={}, asked_encoding=encoding
        )
        fresh = read_source(folder, fresh, source, draft.sheets)
        if fresh.is_table and draft.chosen.named <= set(fresh.columns) and draft.is_ready:
            fresh = make_rows(folder, replace(fresh, chosen=draft.chosen))
        forget_rows(folder)
        write_draft(folder, fresh)
    return fresh


def choose_base(platform: Platform, caller: Caller, draft_id: str, base: str | None) -> Draft:
    """Checks the rows by another model's template from now on."""
    with changing(platform, caller, draft_id) as (folder, found):
        draft = replace(found, base=base)
        (folder / "findings.json").unlink(missing_ok=True)
        write_draft(folder, draft)
    return draft


def delete_draft(platform: Platform, caller: Caller, draft_id: str) -> None:
    """Removes the draft with all its bytes. Raises NotFound."""
    get_draft(platform, caller, draft_id)
    shutil.rmtree(folder_of(platform, draft_id), ignore_errors=True)


def table_head(platform: Platform, draft: Draft, rows: int) -> list[Mapping[str, object]]:
    """The first records of a draft's table, by column, before any column is chosen."""
    path = source_of(platform, draft)
    options = ConvertOptions(sheet=draft.sheet, encoding=draft.asked_encoding)
    records = open_table(path, options).records
    return [found.values for found in islice(records, rows) if isinstance(found, Record)]


def source_of(platform: Platform, draft: Draft) -> Path:
    """The file as it came."""
    return folder_of(platform, draft.id) / draft.source


def folder_of(platform: Platform, draft_id: str) -> Path:
    """The draft's folder. Raises NotFound for what cannot be an id."""
    if _ID.fullmatch(draft_id) is None:
        raise _gone(draft_id)
    return _root(platform) / draft_id


@contextmanager
def changing(platform: Platform, caller: Caller, draft_id: str) -> Iterator[tuple[Path, Draft]]:
    """The draft's folder, locked, and the draft as whoever was before left it. Raises NotFound."""
    get_draft(platform, caller, draft_id)  # without one there is no folder to lock
    folder = folder_of(platform, draft_id)
    with locked(folder):
        draft = get_draft(platform, caller, draft_id)
        with _told_by_name(draft.source, draft.filename):
            yield folder, draft


@contextmanager
def _told_by_name(source: str, filename: str) -> Iterator[None]:
    """An error names the file as its owner knows it, and no option of a command line."""
    try:
        yield
    except AfinaError as error:
        error.message = _OPTION.sub("", error.message.replace(source, filename))
        error.remedy = _without_options(error.remedy)
        raise


def _without_options(remedy: str | None) -> str | None:
    """A remedy for somebody who has no command line: an ending says the format there."""
    if remedy is None:
        return None
    found = _FORMAT.sub(
        lambda m: f"{'L' if m[1] == 'G' else 'l'}et its name end in .{m[2]}", remedy
    )
    return _BRING if "--" in found else found


def _root(platform: Platform) -> Path:
    return platform.settings.data / "drafts"


def _gone(draft_id: str) -> NotFound:
    return NotFound(f"There is no draft {draft_id[:64]}.", param="id")
