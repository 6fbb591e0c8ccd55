"""JSON (a list of objects) and JSONL (an object a line), also where one has the other's name."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.readers.encoding import find_encoding
from afina.data.readers.records import (
    Dropped,
    Place,
    ReadOptions,
    Record,
    Source,
    columns_of,
    opened,
)
from afina.data.remarks import Remark, remark
from afina.data.rows import depth
from afina.data.slips import complaint, slip_of
from afina.errors import DataUnreadable

_MAX_BYTES: Final = 1 << 30
_TOGETHER_BYTES: Final = 256 << 20
"""Up to this size a .jsonl file that is none is tried as one JSON text."""
_DEPTH: Final = CheckLimits().max_depth
_UTF8: Final = ("utf-8", "utf-8-sig")
_DEEPEST_LIST: Final = 4
_MOST_LISTS: Final = 6
_ROWS: Final = 'Write [{"question": ..., "answer": ...}].'
NOT_JSON: Final = "not JSON"
NOT_AN_OBJECT: Final = "not an object"
TOO_LONG: Final = "line too long"
KEY_TWICE: Final = "a key stands twice"


def read_jsonl(path: Path, options: ReadOptions) -> Source:
    """An object a line. Lines that are none are dropped by name; where a file is one list, or its
    objects stand over several lines, that is read, and said."""
    found = find_encoding(path, options.encoding)
    first = next((raw for _, raw in _lines(path, found.name) if raw is None or raw.strip()), b"")
    if first == b"":
        raise DataUnreadable(
            f"{path.name} is empty.", remedy="Give a file with rows.", code="file_empty"
        )
    source = None
    if first is None or not isinstance(_value(first), dict):
        source = _together(path, found.name)
    if source is None:
        notes: list[Remark] = []
        columns, nested = columns_of(_jsonl_records(path, found.name, []))
        if not columns:
            raise _no_object(path, found.name)
        place = Place(path.stat().st_size)
        records = _jsonl_records(path, found.name, notes, place)
        source = Source(columns, records, notes=notes, place=place, nested=nested)
    if found.name not in _UTF8:
        source.encoding, source.encoding_reason = found.name, found.reason
    return source


def read_json(path: Path, options: ReadOptions) -> Source:
    """A list of objects, alone or as the only list in an object."""
    if path.stat().st_size > _MAX_BYTES:
        raise DataUnreadable(
            f"{path.name} is larger than 1 GiB, and JSON is read as a whole.",
            remedy="Write it as JSONL, an object a line.",
        )
    if path.stat().st_size == 0:
        raise DataUnreadable(
            f"{path.name} is empty.", remedy="Give a file with rows.", code="file_empty"
        )
    found = find_encoding(path, options.encoding)
    oddities = _Oddities()
    items, note = _list_of(path, _load(path, found.name, oddities))
    notes = [*([note] if note else []), *oddities.notes()]
    return _listed(items, notes, found.name, found.reason)


@dataclass
class _Oddities:
    """What JSON of others holds and is read all the same."""

    twice: int = 0
    constants: int = 0

    def decoder(self) -> json.JSONDecoder:
        """A decoder that counts them."""
        return json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_int=_whole,
            parse_float=self._finite,
        )

    def notes(self) -> list[Remark]:
        """What was found."""
        found = []
        if self.twice:
            found.append(remark("keys_twice", n=self.twice))
        if self.constants:
            found.append(remark("constants", n=self.constants))
        return found

    def _pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        self.twice += len(value) != len(items)
        return value

    def _constant(self, _: str) -> None:
        self.constants += 1

    def _finite(self, digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        self.constants += 1
        return None


def _listed(items: list[Any], notes: list[Remark], encoding: str, reason: str | None) -> Source:
    records = [
        Record(None, item) if isinstance(item, dict) else Dropped(None, NOT_AN_OBJECT)
        for item in items
    ]
    place = Place(len(records))
    columns, nested = columns_of(records)
    return Source(
        columns=columns,
        records=_told(records, place),
        place=place,
        encoding=encoding,
        encoding_reason=reason,
        notes=notes,
        nested=nested,
    )


def _told(records: list[Record | Dropped], place: Place) -> Iterator[Record | Dropped]:
    done = 0
    place.follow(lambda: done)
    for record in records:
        done += 1
        yield record


def _lines(
    path: Path, encoding: str, place: Place | None = None
) -> Iterator[tuple[int, bytes | None]]:
    """Numbers and lines as UTF-8, None for one that is too long."""
    cap = CheckLimits().max_line_bytes
    if encoding in _UTF8:
        reader = LineReader(path, cap)
        if place is not None:
            place.follow(lambda: reader.bytes_read)
        for line in reader:
            yield line.number, line.raw
        return
    number = 1
    try:
        with opened(path, encoding, None) as (raw, file):
            if place is not None:
                place.follow(raw.tell)
            while text := file.readline(cap):
                whole = text.endswith("\n") or len(text) < cap
                yield number, text.rstrip("\n").encode("utf-8", "surrogatepass") if whole else None
                while not whole:
                    text = file.readline(cap)
                    whole = text.endswith("\n") or len(text) < cap
                number += 1
    except UnicodeError:
        raise DataUnreadable(
            f"{path.name} is not {encoding} text from line {number} on.",
            param="encoding",
            remedy="Save it again as UTF-8, or give its encoding.",
            code="file_encoding",
        ) from None


def _jsonl_records(
    path: Path, encoding: str, notes: list[Remark], place: Place | None = None
) -> Iterator[Record | Dropped]:
    """The records; what was read in spite of its form is told in `notes` once all are read."""
    commas = marks = 0
    for number, raw in _lines(path, encoding, place):
        if raw is None:
            yield Dropped(number, TOO_LONG)
            continue
        if raw.startswith(codecs.BOM_UTF8):
            raw, marks = raw.removeprefix(codecs.BOM_UTF8), marks + 1
        if not raw.strip():
            continue
        value = _value(raw)
        if value is msgspec.UNSET and raw.rstrip().endswith(b"},"):
            value = _value(raw.rstrip()[:-1])
            commas += isinstance(value, dict)
        if isinstance(value, dict):
            yield Record(number, value)
        else:
            reason = NOT_JSON if value is msgspec.UNSET else NOT_AN_OBJECT
            reason = KEY_TWICE if _has_a_key_twice(raw) else reason
            yield Dropped(number, reason, raw if _is_text(raw) else None)
    if marks:
        notes.append(remark("marks", n=marks))
    if commas:
        notes.append(remark("commas", n=commas))


def _value(raw: bytes) -> Any:
    """The line's value; UNSET for one that is no JSON, or has a key twice."""
    try:
        value = msgspec.json.decode(raw)
        # written again, a key that stood twice has left quotation marks behind
        fewer = raw.count(b'"') > msgspec.json.encode(value).count(b'"')
        return msgspec.UNSET if fewer and _has_a_key_twice(raw) else value
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return msgspec.UNSET


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_a_key_twice(raw: bytes) -> bool:
    oddities = _Oddities()
    try:
        oddities.decoder().decode(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return oddities.twice > 0


def _together(path: Path, encoding: str) -> Source | None:
    """A file whose lines are no objects, as one list or as objects over several lines; None where
    it is neither."""
    if path.stat().st_size > _TOGETHER_BYTES:
        return None
    raw = path.read_bytes()
    oddities = _Oddities()
    decoder = oddities.decoder()
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
        items, at = [], _end_of_space(text, 0)
        while at < len(text):
            item, at = decoder.raw_decode(text, at)
            items.append(item)
            at = _end_of_space(text, at)
    except (ValueError, RecursionError):
        return None
    if len(items) == 1 and isinstance(items[0], list):
        return _listed(items[0], [remark("one_list"), *oddities.notes()], encoding, None)
    if not any(isinstance(item, dict) for item in items):
        return None
    return _listed(items, [remark("over_lines"), *oddities.notes()], encoding, None)


def _end_of_space(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start


def _whole(digits: str) -> float | int:
    return int(digits) if len(digits) < 1000 else float(digits)


def _no_object(path: Path, encoding: str) -> DataUnreadable:
    """What is wrong with the first line of a file in which no line is an object."""
    for number, raw in _lines(path, encoding):
        if raw is None or not raw.strip():
            continue
        try:
            json.loads(raw)
            why, remedy = "is no object", 'Write {"messages": [...]} on each line.'
        except json.JSONDecodeError as error:
            why = f"is not JSON ({complaint(error)} at column {error.colno})"
            remedy = _remedy(error)
        except (ValueError, RecursionError):
            why, remedy = "is not JSON that can be read", "Write an object a line."
        return DataUnreadable(
            f"{path.name} has no line that is a JSON object: line {number} {why}.",
            remedy=remedy,
            code="file_not_json",
        )
    return DataUnreadable(
        f"{path.name} has no line that can be read: each is longer than "
        f"{CheckLimits().max_line_bytes >> 20} MB.",
        remedy="Write an object a line. If the file is one JSON list, give --format json.",
    )


def _remedy(error: json.JSONDecodeError) -> str:
    slip = slip_of(error.doc, error.pos)
    if slip is not None:
        return slip
    if not error.doc.lstrip().startswith(("{", "[")):
        return "If it is a table, give --format csv (or tsv)."
    return "Mend how the file is made: an object a line."


def _load(path: Path, encoding: str, oddities: _Oddities) -> Any:
    raw = path.read_bytes()
    try:
        text = raw.decode(encoding)
        if depth(raw) > _DEPTH:
            raise DataUnreadable(f"{path.name} is nested more than {_DEPTH} levels deep.")
        return oddities.decoder().decode(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data"
        raise DataUnreadable(
            f"{path.name} is not JSON: {complaint(error)} in line {error.lineno}, "
            f"column {error.colno}.",
            remedy="It looks like an object a line: give --format jsonl."
            if lines
            else _remedy(error),
            code="file_not_json",
        ) from None
    except ValueError:
        raise DataUnreadable(
            f"{path.name} is not JSON that can be read.", code="file_not_json"
        ) from None


def _list_of(path: Path, value: Any) -> tuple[list[Any], Remark | None]:
    if isinstance(value, list):
        if value and not any(isinstance(item, dict) for item in value):
            raise DataUnreadable(
                f"{path.name} is a list without an object in it.", remedy=_ROWS, code="file_no_rows"
            )
        return value, None
    if isinstance(value, dict) and ("messages" in value or "preferred_output" in value):
        return [value], None
    lists = list(_lists_of_objects(value))
    if len(lists) == 1:
        return lists[0][1], remark("under_key", key=repr(lists[0][0]))
    if lists:
        named = ", ".join(repr(name) for name, _ in lists[:_MOST_LISTS])
        raise DataUnreadable(
            f"{path.name} holds {len(lists)} lists of objects: {named}.",
            remedy="Write a file with one of them alone.",
        )
    if isinstance(value, dict) and value and all(map(_is_column, value.values())):
        raise DataUnreadable(
            f"{path.name} holds a column under each key, and no rows.",
            remedy='Write rows; pandas does so with to_json(path, orient="records").',
            code="file_no_rows",
        )
    raise DataUnreadable(f"{path.name} is no list of objects.", remedy=_ROWS, code="file_no_rows")


def _lists_of_objects(
    value: Any, above: str = "", deep: int = 0
) -> Iterator[tuple[str, list[Any]]]:
    """Lists that hold objects, under keys of objects, with the path to each."""
    if not isinstance(value, dict) or deep > _DEEPEST_LIST:
        return
    for key, item in value.items():
        name = f"{above}.{key}" if above else key
        if isinstance(item, list) and any(isinstance(one, dict) for one in item):
            yield name, item
        else:
            yield from _lists_of_objects(item, name, deep + 1)


def _is_column(value: Any) -> bool:
    """A list of values, or values by their number, as pandas writes columns."""
    return isinstance(value, list) or (
        isinstance(value, dict) and bool(value) and all(str(key).isdigit() for key in value)
    )
