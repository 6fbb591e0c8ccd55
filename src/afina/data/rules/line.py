"""Rules over the bytes of a line: is it JSON that every reader understands alike?"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from afina.data.rows import depth, shown
from afina.data.rules.rule import Fault, Faults, LineFacts
from afina.data.slips import complaint, slip_of

_MAX_DIGITS: Final = 4000
"""Python itself refuses to read or write integers of more than 4,300."""


def line_too_long(line: LineFacts) -> Faults:
    if line.raw is None:
        yield Fault(
            f"The line is {line.size:,} bytes long; at most {line.max_line_bytes:,} are allowed."
        )


def not_utf8(line: LineFacts) -> Faults:
    if line.raw is None:
        return
    try:
        line.raw.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = " The file looks like UTF-16." if _is_wide(line.raw) else ""
        yield Fault(f"Byte {error.start + 1} of the line is not UTF-8.{hint}")


def _is_wide(raw: bytes) -> bool:
    """Whether every second byte may be a zero, as in plain letters of UTF-16."""
    start = raw[:64]
    zeros = max(start[0::2].count(0), start[1::2].count(0))
    return start.startswith((b"\xff\xfe", b"\xfe\xff")) or zeros * 3 > len(start)


def too_deep(line: LineFacts) -> Faults:
    if line.raw is not None and (levels := depth(line.raw)) > line.max_depth:
        yield Fault(f"Lists and objects are nested {levels:,} deep; {line.max_depth} is the limit.")


def not_json(line: LineFacts) -> Faults:
    if line.text is None:
        return
    try:
        json.loads(line.text, parse_int=float)
    except json.JSONDecodeError as error:
        slip = slip_of(line.text, error.pos)
        why = f"The line is not JSON: {complaint(error)} at column {error.colno}."
        yield Fault(f"{why} {slip}" if slip else why)
    except (ValueError, RecursionError):
        yield Fault("The line is not JSON that can be read.")


def not_finite(line: LineFacts) -> Faults:
    """Python reads and writes NaN and Infinity; no other reader of JSON does."""

    def refuse(name: str) -> NoReturn:
        raise _ConstantFound(name)

    def finite(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise _ConstantFound("a number out of range")
        return value

    def whole(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise _ConstantFound("a number out of range")
        return int(digits)

    if line.text is None:
        return
    try:
        json.loads(line.text, parse_constant=refuse, parse_float=finite, parse_int=whole)
    except _ConstantFound as error:
        yield Fault(f"The line holds {error}, which is not a JSON number.")


def duplicate_key(line: LineFacts) -> Faults:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(items)
        if len(seen) != len(items):
            keys = [key for key, _ in items]
            twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return seen

    if line.text is None:
        return
    json.loads(line.text, object_pairs_hook=pairs, parse_int=float)
    if twice:
        names = ", ".join(sorted({shown(key) for key in twice}))
        yield Fault(f"An object has a key more than once: {names}.")


def lone_surrogate(line: LineFacts) -> Faults:
    if line.text is None:
        return
    value = json.loads(line.text, parse_int=float)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        yield Fault("A string holds half of a surrogate pair (\\ud800 to \\udfff) on its own.")


class _ConstantFound(ValueError):
    """NaN or Infinity was read."""
