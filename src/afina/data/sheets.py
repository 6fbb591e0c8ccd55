"""A workbook of several sheets, opened where nobody has said which: the first whose columns say
what they are, else the first that can be read. The command line asks; a page offers the others.
"""

from __future__ import annotations

from pathlib import Path

from afina.data.columns import map_columns
from afina.data.convert import ConvertOptions, open_table
from afina.data.readers.records import Source
from afina.data.readers.workbook import visible_sheets
from afina.errors import DataUnreadable, InvalidRequest

_WORKBOOKS = (".xlsx", ".xlsm")


def open_likely(path: Path) -> tuple[Source, tuple[str, ...]]:
    """The table of a file, and the sheets that there are to choose from; none where there is one.
    Raises DataUnreadable, InvalidRequest."""
    names = visible_sheets(path) if path.suffix.lower() in _WORKBOOKS else ()
    if len(names) < 2:
        return open_table(path, ConvertOptions()), ()
    readable: Source | None = None
    for name in names:
        try:
            source = open_table(path, ConvertOptions(sheet=name))
        except (DataUnreadable, InvalidRequest):
            continue  # empty, or without columns
        readable = readable or source
        if _says_itself(source):
            return source, names
    if readable is None:
        raise DataUnreadable(
            f"None of the {len(names)} sheets of {path.name} has rows to read.", code="file_no_rows"
        )
    return readable, names


def _says_itself(source: Source) -> bool:
    if "messages" in source.columns:
        return True
    try:
        map_columns(source.columns, None, None, None)
    except InvalidRequest:
        return False
    return True
