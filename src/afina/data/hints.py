"""What to do with a file that is no training file: most can be converted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from afina.data.convert import open_table
from afina.data.layouts import find_layout
from afina.data.readers.disguises import no_text
from afina.data.row_plan import ConvertOptions
from afina.errors import AfinaError, DataUnreadable, InvalidRequest

_MADE: Final = {
    "sharegpt": "rows of ShareGPT's form",
    "alpaca": "rows of Alpaca's form",
    "preference": "preferences of another form",
}


def conversion_hint(path: Path) -> str | None:
    """A sentence for a file without a usable row: what it looks like and the command that makes
    rows of it; None where nobody knows."""
    ending = path.suffix.lower().lstrip(".")
    is_lines = ending in ("jsonl", "ndjson")
    command = f"afina data convert {path} --to rows.jsonl"
    try:
        opened = open_table(path, ConvertOptions())
        layout = find_layout(opened.columns)
    except DataUnreadable as error:
        return None if is_lines and no_text(path) is None else error.one_line()
    except InvalidRequest as error:
        if is_lines or error.param == "format":
            return None
        return f"{path.name} is no JSONL. `{command}` makes rows of it. {error.one_line()}"
    except (AfinaError, OSError):
        return None
    if is_lines:
        other = opened.notes or (opened.encoding not in (None, "utf-8", "utf-8-sig"))
        if layout not in _MADE and not other:
            return None
    what = _MADE.get(layout or "", "a file of another form")
    return f"{path.name} looks like {what}. Make training rows of it: {command}"
