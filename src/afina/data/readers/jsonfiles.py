"""JSON (a list of objects) and JSONL (an object a line)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.readers.encoding import find_encoding
from afina.data.readers.records import Dropped, ReadOptions, Record, Source
from afina.data.rows import depth
from afina.errors import DataUnreadable

_MAX_BYTES: Final = 1 << 30
_DEPTH: Final = CheckLimits().max_depth
_COLUMN_SAMPLE: Final = 100
NOT_JSON: Final = "not JSON"
NOT_AN_OBJECT: Final = "not an object"
TOO_LONG: Final = "line too long"


def read_jsonl(path: Path, options: ReadOptions) -> Source:
    """An object a line, in UTF-8. Lines that are none are dropped by name."""
    if options.encoding is not None or _is_wide(path):
        raise DataUnreadable(
            f"{path.name} is not UTF-8, as JSONL must be.",
            param="encoding",
            remedy="Save it as UTF-8.",
        )
    return Source(columns=_columns(_jsonl_records(path)), records=_jsonl_records(path))


def read_json(path: Path, options: ReadOptions) -> Source:
    """A list of objects, alone or as the only list in an object."""
    if path.stat().st_size > _MAX_BYTES:
        raise DataUnreadable(
            f"{path.name} is larger than 1 GiB, and JSON is read as a whole.",
            remedy="Write it as JSONL, an object a line.",
        )
    found = find_encoding(path, options.encoding)
    items, note = _list_of(path, _load(path, found.name))
    records = [
        Record(None, item) if isinstance(item, dict) else Dropped(None, NOT_AN_OBJECT)
        for item in items
    ]
    return Source(
        columns=_columns(iter(records)),
        records=iter(records),
        encoding=found.name,
        encoding_reason=found.reason,
        notes=[note] if note else [],
    )


def _jsonl_records(path: Path) -> Iterator[Record | Dropped]:
    for line in LineReader(path, CheckLimits().max_line_bytes):
        if line.is_blank:
            continue
        if line.raw is None:
            yield Dropped(line.number, TOO_LONG)
            continue
        value = _value(line.raw)
        if isinstance(value, dict):
            yield Record(line.number, value)
        else:
            reason = NOT_JSON if value is msgspec.UNSET else NOT_AN_OBJECT
            yield Dropped(line.number, reason)


def _value(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return msgspec.UNSET


def _load(path: Path, encoding: str) -> Any:
    raw = path.read_bytes()
    try:
        text = raw.decode(encoding)
        if depth(raw) > _DEPTH:
            raise DataUnreadable(f"{path.name} is nested more than {_DEPTH} levels deep.")
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataUnreadable(
            f"{path.name} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            remedy="Mend that place; for an object a line use the name .jsonl.",
        ) from None
    except ValueError:
        raise DataUnreadable(f"{path.name} is not JSON that can be read.") from None


def _list_of(path: Path, value: Any) -> tuple[list[Any], str | None]:
    if isinstance(value, list):
        return value, None
    if isinstance(value, dict):
        if "messages" in value:
            return [value], None
        lists = [key for key, item in value.items() if isinstance(item, list)]
        if len(lists) == 1:
            return value[lists[0]], f"The rows are those under {lists[0]!r}."
    raise DataUnreadable(
        f"{path.name} is no list of objects.", remedy='Write [{"question": ..., "answer": ...}].'
    )


def _columns(records: Iterator[Record | Dropped]) -> tuple[str, ...]:
    """Keys of the first records, in the order in which they appear."""
    keys: dict[str, None] = {}
    seen = 0
    for record in records:
        if isinstance(record, Record):
            keys.update(dict.fromkeys(record.values))
            seen += 1
            if seen >= _COLUMN_SAMPLE:
                break
    return tuple(keys)


def _is_wide(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" in file.read(256)
