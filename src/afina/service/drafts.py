"""Drafts: files that somebody prepares in the browser, before they become training files.

A draft is a folder DATA/drafts/<id> with the file as it came, the rows that the chosen columns
make of it, and the edits on top. The file that came is never changed. `draft_rows` has the rows,
their findings and the edits; `save_draft` there makes a file of the project.
"""

from __future__ import annotations

import json
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from afina.data.columns import ANSWER_NAMES, QUESTION_NAMES, map_columns
from afina.data.convert import ConvertOptions, convert_file, open_table
from afina.data.layouts import find_layout
from afina.data.readers.records import Record, Source
from afina.data.sheets import open_likely
from afina.domain.accounts import Caller
from afina.domain.codec import decode, encode
from afina.errors import AfinaError, InvalidRequest, NotFound, TooLarge
from afina.service import encodings
from afina.service.draft_edits import (
    History,
    locked,
    read_history,
    under_system,
    write_history,
    write_whole,
)
from afina.service.platform import Platform

PREFIX: Final = "draft-"
KEPT_S: Final = 30 * 24 * 3600
"""A draft that nobody touched for so long is removed."""
_ID: Final = re.compile(r"draft-[A-Za-z0-9]{24}")
_ENDING: Final = re.compile(r"\.[A-Za-z0-9]{1,8}")
_WORD: Final = re.compile(r"\w+")
_MAX_NAME: Final = 255
_FORMAT: Final = re.compile(r"\b([Gg])ive --format (\w+)")
_OPTION: Final = re.compile(r" \(--[^)]*\)")
_BRING: Final = "Save it as Excel or Parquet, or as CSV or JSONL in UTF-8, and bring it again."


@dataclass(frozen=True)
class Columns:
    """Which columns are what; `system` is a text for every row."""

    user: str | None = None
    assistant: str | None = None
    system_column: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class Draft:
    """What is known of a draft. `is_table`: columns were chosen; else the rows are as they came."""

    id: str
    project_id: str
    filename: str
    created_at: int
    bytes: int
    source: str
    """The name of the file as it came, in the draft's folder."""
    columns: tuple[str, ...] = ()
    chosen: Columns = field(default_factory=Columns)
    is_table: bool = False
    rows: int = 0
    """Rows that the columns make; 0 as long as they are not chosen."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows of the source that are none, by reason."""
    encoding: str | None = None
    encoding_reason: str | None = None
    asked_encoding: str | None = None
    """The one that the reader chose, where the one that was found out reads other letters."""
    delimiter: str | None = None
    layout: str | None = None
    """What records of another maker were read as; None for a table, and for rows of ours."""
    sheet: str | None = None
    sheets: tuple[str, ...] = ()
    """What a workbook has to choose from; none where there is one sheet."""
    notes: tuple[str, ...] = ()
    base: str | None = None
    """The base model by whose template the rows are checked."""

    @property
    def is_ready(self) -> bool:
        """Whether there are rows to look at."""
        return self.rows > 0


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
            size = _keep(folder / name, source, platform.settings.max_upload_bytes)
            draft = Draft(id_, caller.project_id, filename, platform.now(), size, name, base=base)
            draft = _read(folder, draft, *open_likely(folder / name))
        if left_out:
            draft = replace(draft, dropped={**draft.dropped, **left_out})
        _write(folder, draft)
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


def read_draft(folder: Path) -> Draft:
    """The draft of a folder. Raises FileNotFoundError."""
    return decode(Draft, json.loads((folder / "draft.json").read_bytes()), "draft")


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
        draft = _convert(folder, replace(draft, chosen=chosen))
        _forget(folder)
        write_history(folder, kept)
        _write(folder, draft)
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
        draft = _read(folder, fresh, source, draft.sheets)
        _forget(folder)
        _write(folder, draft)
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
        fresh = _read(folder, fresh, source, draft.sheets)
        named = {draft.chosen.user, draft.chosen.assistant, draft.chosen.system_column} - {None}
        if fresh.is_table and draft.chosen.user and named <= set(fresh.columns):
            fresh = _convert(folder, replace(fresh, chosen=draft.chosen))
        _forget(folder)
        _write(folder, fresh)
    return fresh


def choose_base(platform: Platform, caller: Caller, draft_id: str, base: str | None) -> Draft:
    """Checks the rows by another model's template from now on."""
    with changing(platform, caller, draft_id) as (folder, found):
        draft = replace(found, base=base)
        (folder / "findings.json").unlink(missing_ok=True)
        _write(folder, draft)
    return draft


def add_line(folder: Path, draft: Draft, line: bytes) -> Draft:
    """Appends a row to a draft whose rows are no table's. The file that came stays as it is; the
    caller holds the lock."""
    with (folder / "rows.jsonl").open("ab") as out:
        out.write(line)
    draft = replace(draft, rows=_index(folder / "rows.jsonl"))
    (folder / "findings.json").unlink(missing_ok=True)
    _write(folder, draft)
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


def _forget(folder: Path) -> None:
    """What was made of rows that are no more."""
    for name in ("edits.json", "findings.json", "current.jsonl"):
        (folder / name).unlink(missing_ok=True)


def _read(folder: Path, draft: Draft, source: Source, sheets: tuple[str, ...]) -> Draft:
    draft = replace(
        draft,
        columns=source.columns,
        encoding=source.encoding,
        encoding_reason=source.encoding_reason,
        delimiter=source.delimiter,
        sheet=source.sheet,
        sheets=sheets,
        notes=tuple(source.notes),
        layout=None,
    )
    layout = find_layout(source.columns, source.nested)
    is_lines = draft.source.endswith((".jsonl", ".ndjson")) and source.encoding is None
    is_rows = "preferred_output" in source.columns or source.columns == ("item",)
    if layout == "chat" or (is_lines and is_rows):
        return _convert(folder, draft)
    if layout is not None:
        return _convert(folder, replace(draft, layout=layout))
    try:
        mapped = map_columns(source.columns, None, None, None)
        chosen = Columns(user=mapped.user, assistant=mapped.assistant)
    except InvalidRequest:
        # The page shows what was guessed, and its reader says what else it should be.
        chosen = Columns(
            user=_likely(source.columns, QUESTION_NAMES),
            assistant=_likely(source.columns, ANSWER_NAMES),
        )
    draft = replace(draft, is_table=True, chosen=chosen)
    whole = chosen.user and chosen.assistant and chosen.user != chosen.assistant
    return _convert(folder, draft) if whole else draft


def _likely(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The only column that has one of these words in its name."""
    known = set(usual)
    found = [name for name in columns if known & set(_WORD.findall(name.lower()))]
    exact = [name for name in found if name.strip().lower() in known]
    chosen = exact or found
    return chosen[0] if len(chosen) == 1 else None


def _convert(folder: Path, draft: Draft) -> Draft:
    """Writes rows.jsonl and its index of lines."""
    target = folder / "rows.jsonl"
    has_chats = "messages" in {column.strip().lower() for column in draft.columns}
    if not draft.is_table and draft.layout is None and not has_chats:
        _pass_on(folder / draft.source, target)
        return replace(draft, rows=_index(target))
    given = draft.chosen
    options = ConvertOptions(
        user=given.user or None,
        assistant=given.assistant or None,
        system_column=given.system_column or None,
        system=given.system or None,
        sheet=draft.sheet,
        encoding=draft.asked_encoding,
        keep_broken=True,
    )
    report = convert_file(folder / draft.source, target, options)
    return replace(draft, rows=_index(target), dropped=dict(report.dropped))


def _pass_on(source: Path, target: Path) -> None:
    """Rows of another kind than chats, as they are; blank lines are none."""
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            if row := line.removeprefix(b"\xef\xbb\xbf").strip():
                out.write(row + b"\n")


def _index(path: Path) -> int:
    """Writes where each line begins, for a quick look at any row; returns how many."""
    offsets = array("q")
    place = 0
    with path.open("rb") as lines:
        for line in lines:
            offsets.append(place)
            place += len(line)
    write_whole(path.with_suffix(".index"), offsets.tobytes())
    return len(offsets)


def _keep(path: Path, source: Iterable[bytes], most: int) -> int:
    size = 0
    with path.open("wb") as out:
        for piece in source:
            size += len(piece)
            if size > most:
                raise TooLarge(f"The file is larger than {most:,} bytes.", param="file")
            out.write(piece)
    if size == 0:
        raise InvalidRequest("The file is empty.", param="file")
    return size


def _write(folder: Path, draft: Draft) -> None:
    write_whole(folder / "draft.json", json.dumps(encode(draft)).encode())


def _root(platform: Platform) -> Path:
    return platform.settings.data / "drafts"


def _gone(draft_id: str) -> NotFound:
    return NotFound(f"There is no draft {draft_id[:64]}.", param="id")
