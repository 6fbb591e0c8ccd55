"""A draft's folder DATA/drafts/<id>: the file as it came, the rows that the chosen columns make of
it, the index of their lines, and what is known of the draft. `drafts` has what is done with them.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from afina.data.columns import ANSWER_NAMES, QUESTION_NAMES, map_columns
from afina.data.convert import ConvertOptions, convert_file
from afina.data.grouping import likely_group, log_of
from afina.data.layouts import find_layout
from afina.data.readers.records import Source
from afina.data.remarks import Remark, remark
from afina.domain.codec import decode, encode
from afina.errors import InvalidRequest, TooLarge
from afina.service.draft_edits import write_whole

_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Columns:
    """Which columns are what; `system` is a text for every row. `group` says which conversation a
    record is of, and `order` in which order its records stand."""

    user: str | None = None
    assistant: str | None = None
    system_column: str | None = None
    system: str | None = None
    group: str | None = None
    order: str | None = None

    @property
    def named(self) -> set[str]:
        """The columns that mean something."""
        every = {self.user, self.assistant, self.system_column, self.group, self.order}
        return {name for name in every if name is not None}

    @property
    def says_all(self) -> bool:
        """Whether there is a question and an answer."""
        return bool(self.user and self.assistant)


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
    notes: tuple[Remark | str, ...] = ()
    """What is said of the file beside its rows; texts are those of older versions."""
    base: str | None = None
    """The base model by whose template the rows are checked."""

    @property
    def is_ready(self) -> bool:
        """Whether there are rows to look at."""
        return self.rows > 0


def read_draft(folder: Path) -> Draft:
    """The draft of a folder. Raises FileNotFoundError."""
    return decode(Draft, json.loads((folder / "draft.json").read_bytes()), "draft")


def add_line(folder: Path, draft: Draft, line: bytes) -> Draft:
    """Appends a row to a draft whose rows are no table's. The file that came stays as it is; the
    caller holds the lock."""
    with (folder / "rows.jsonl").open("ab") as out:
        out.write(line)
    draft = replace(draft, rows=_index(folder / "rows.jsonl"))
    (folder / "findings.json").unlink(missing_ok=True)
    write_draft(folder, draft)
    return draft


def forget_rows(folder: Path) -> None:
    """Removes what was made of rows that are no more."""
    for name in ("edits.json", "findings.json", "current.jsonl"):
        (folder / name).unlink(missing_ok=True)


def read_source(folder: Path, draft: Draft, source: Source, sheets: tuple[str, ...]) -> Draft:
    """The draft of a source that was opened, with its rows where its columns say what they are.
    Raises DataUnreadable, InvalidRequest."""
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
        return make_rows(folder, draft)
    if layout is not None:
        return make_rows(folder, replace(draft, layout=layout))
    try:
        mapped = map_columns(source.columns, None, None, None)
        chosen = Columns(user=mapped.user, assistant=mapped.assistant)
    except InvalidRequest:
        # The page shows what was guessed, and its reader says what else it should be.
        chosen = Columns(
            user=_likely(source.columns, QUESTION_NAMES),
            assistant=_likely(source.columns, ANSWER_NAMES),
        )
        if (log := log_of(source.columns)) is not None:
            chosen = Columns(group=likely_group(source.columns))
            told = remark("log", who=repr(log[0]), what=repr(log[1]))
            draft = replace(draft, notes=(*draft.notes, told))
    draft = replace(draft, is_table=True, chosen=chosen)
    guessed_one = chosen.user is not None and chosen.user == chosen.assistant
    return make_rows(folder, draft) if can_be_rows(draft, chosen) and not guessed_one else draft


def can_be_rows(draft: Draft, chosen: Columns) -> bool:
    """Whether the columns make rows: a question and an answer, or a log's conversations."""
    return chosen.says_all or (chosen.group is not None and log_of(draft.columns) is not None)


def _likely(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    """The only column that has one of these words in its name."""
    known = set(usual)
    found = [name for name in columns if known & set(_WORD.findall(name.lower()))]
    exact = [name for name in found if name.strip().lower() in known]
    chosen = exact or found
    return chosen[0] if len(chosen) == 1 else None


def make_rows(folder: Path, draft: Draft) -> Draft:
    """Writes rows.jsonl and its index of lines. Raises DataUnreadable, InvalidRequest."""
    target = folder / "rows.jsonl"
    has_chats = "messages" in {column.strip().lower() for column in draft.columns}
    if not draft.is_table and draft.layout is None and not has_chats:
        _pass_on(folder / draft.source, target)
        return replace(draft, rows=_index(target))
    given = draft.chosen
    options = ConvertOptions(
        user=given.user if given.says_all else None,
        assistant=given.assistant if given.says_all else None,
        system_column=given.system_column or None,
        system=given.system or None,
        group=given.group or None,
        order=given.order or None,
        sheet=draft.sheet,
        encoding=draft.asked_encoding,
        keep_broken=True,
    )
    report = convert_file(folder / draft.source, target, options)
    return replace(draft, rows=_index(target), dropped=dict(report.dropped), notes=report.remarks)


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


def keep_bytes(path: Path, source: Iterable[bytes], most: int) -> int:
    """Writes the file as it came; returns its size. Raises TooLarge, InvalidRequest."""
    size = 0
    with path.open("wb") as out:
        for piece in source:
            size += len(piece)
            if size > most:
                raise TooLarge(f"The file is larger than {most:,} bytes.", param="file")
            out.write(piece)
    if size == 0:
        raise InvalidRequest("The file is empty.", param="file", code="file_empty")
    return size


def write_draft(folder: Path, draft: Draft) -> None:
    """Keeps what is known of it, whole or not at all."""
    write_whole(folder / "draft.json", json.dumps(encode(draft)).encode())
