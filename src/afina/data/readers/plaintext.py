"""Lines of plain text: each is a completion, as the old tool of the API read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afina.data.readers.delimited import EMPTY_ROW
from afina.data.readers.encoding import find_encoding
from afina.data.readers.records import Dropped, Place, ReadOptions, Record, Source, opened
from afina.errors import DataUnreadable


def read_text(path: Path, options: ReadOptions) -> Source:
    """A line is a record with the column `completion`."""
    found = find_encoding(path, options.encoding)
    place = Place(path.stat().st_size)
    return Source(
        columns=("prompt", "completion"),
        records=_records(path, found.name, place),
        place=place,
        encoding=found.name,
        encoding_reason=found.reason,
    )


def _records(path: Path, encoding: str, place: Place) -> Iterator[Record | Dropped]:
    number = 0
    try:
        with opened(path, encoding, None) as (raw, file):
            place.follow(raw.tell)
            for number, line in enumerate(file, 1):
                text = line.rstrip("\n")
                if text.strip():
                    yield Record(number, {"prompt": "", "completion": text})
                else:
                    yield Dropped(number, EMPTY_ROW)
    except UnicodeError:
        raise DataUnreadable(
            f"{path.name} is not {encoding} text from line {number + 1} on.",
            param="encoding",
            remedy="Save it again as UTF-8, or give its encoding.",
            code="file_encoding",
        ) from None
