"""What to do with a file that is no training file: most can be converted."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from afina.data.columns import listed
from afina.data.convert import open_table
from afina.data.kinds import kind_of_row
from afina.data.layouts import find_layout
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.readers.disguises import no_text
from afina.data.row_plan import ConvertOptions, plan_rows
from afina.data.rows import quick_value, slow_value
from afina.errors import AfinaError, DataUnreadable, InvalidRequest

_MADE: Final = {
    "sharegpt": "rows of ShareGPT's form",
    "alpaca": "rows of Alpaca's form",
    "preference": "preferences of another form",
    "gemini": "rows for Gemini",
    "converse": "chats with a system text of their own",
    "chatgpt": "ChatGPT's export",
    "claude": "Claude's export",
    "eval": "rows of an eval",
}
_FILES: Final = {
    "csv": "a table (CSV)",
    "tsv": "a table (TSV)",
    "tab": "a table (TSV)",
    "xlsx": "an Excel workbook",
    "xlsm": "an Excel workbook",
    "parquet": "a Parquet file",
    "pq": "a Parquet file",
    "json": "one JSON text",
}
_OURS: Final = ({"messages"}, {"prompt", "completion"}, {"input", "preferred_output"})
"""Keys of rows that are ours already: the check names what is wrong with them."""
_GIVE: Final = "Give --format "
_FIRST_BYTES: Final = 1 << 20


def has_rows(path: Path) -> bool:
    """Whether any line looks like a row of a kind that is trained on; reads up to the first."""
    for line in LineReader(path, CheckLimits().max_line_bytes):
        if line.raw is not None and not line.is_blank:
            value = quick_value(line.raw, CheckLimits().max_depth)
            if value is not msgspec.UNSET and kind_of_row(value) is not None:
                return True
    return False


def conversion_hint(path: Path) -> str | None:
    """A sentence for a file without a usable row: what it looks like and the command that makes
    rows of it; None where nobody knows."""
    ending = path.suffix.lower().lstrip(".")
    is_lines = ending in ("jsonl", "ndjson")
    command = f"afina data convert {shlex.quote(str(path))} --to rows.jsonl"
    if is_lines and _begins_with_a_row(path):
        return None
    try:
        opened = open_table(path, ConvertOptions())
        layout = find_layout(opened.columns, opened.nested)
    except DataUnreadable as error:
        return _unreadable(path, error, is_lines)
    except InvalidRequest as error:
        if is_lines or error.param == "format":
            return None
        return f"{path.name} is no JSONL. `{command}` makes rows of it. {error.one_line()}"
    except (AfinaError, OSError):
        return None
    other = opened.notes or (opened.encoding not in (None, "utf-8", "utf-8-sig"))
    if is_lines and layout not in _MADE and not other:
        return _keys(path, opened.columns)
    what = _MADE.get(layout or "") or _FILES.get(ending, "a file of another form")
    asked = (
        ""
        if layout or ending in ("txt", "text")
        else _columns_to_name(opened.columns, opened.nested)
    )
    return f"{path.name} looks like {what}. Make training rows of it: {command}{asked}"


def _begins_with_a_row(path: Path) -> bool:
    """Whether the first line is a row of a kind that is trained on, though its text may be broken:
    no other form is what is wrong with it."""
    lines = (line.raw for line in LineReader(path, _FIRST_BYTES))
    first = next((raw for raw in lines if raw is None or raw.strip()), None) or b""
    if rb"\ud" not in first.lower():
        return False
    try:
        return kind_of_row(slow_value(first)) is not None
    except (ValueError, RecursionError):
        return False


def _unreadable(path: Path, error: DataUnreadable, is_lines: bool) -> str | None:
    """Of a file whose name promises what the bytes are not."""
    told = no_text(path)
    if is_lines and told is not None and told.remedy.startswith(_GIVE):
        kind = told.remedy.removeprefix(_GIVE).rstrip(".")
        command = f"afina data convert {shlex.quote(str(path))} --format {kind} --to rows.jsonl"
        return f"{path.name} is {told.what}. Make training rows of it: {command}"
    if not is_lines or told is not None:
        return error.one_line()
    return _no_json(path)


def _no_json(path: Path) -> str | None:
    """Of text whose first line does not even begin as JSON; what does is the check's to name."""
    lines = (line.raw for line in LineReader(path, _FIRST_BYTES))
    first = next((raw for raw in lines if raw is None or raw.strip()), None)
    if first is None or b"\0" in first or first.lstrip()[:1] in b'{["':
        return None
    command = f"afina data convert {shlex.quote(str(path))} --format csv --to rows.jsonl"
    return f"{path.name} holds no JSON. If it is a table: {command}"


def _keys(path: Path, columns: Sequence[str]) -> str | None:
    """Of objects, a line each, that are rows of no form that is known."""
    names = {column.strip().lower() for column in columns}
    if any(ours <= names for ours in _OURS):
        return None
    command = f"afina data convert {shlex.quote(str(path))} --to rows.jsonl"
    asked = _columns_to_name(columns)
    return f"{path.name} holds objects that are no chats. Make training rows: {command}{asked}"


def _columns_to_name(columns: Sequence[str], nested: Collection[str] = ()) -> str:
    """What the command needs besides, where no column is plainly the question or the answer."""
    try:
        plan_rows(columns, ConvertOptions(), nested=nested)
    except InvalidRequest:
        return f" --user COLUMN --assistant COLUMN. {listed(columns)}"
    return ""
