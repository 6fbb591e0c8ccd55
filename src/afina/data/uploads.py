"""What an upload for fine-tuning is refused for at once: lines that are no JSON objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from afina.data.limits import CheckLimits
from afina.data.lines import LineReader, SourceLine
from afina.data.rows import quick_value
from afina.data.rules.line import lone_surrogate, not_finite, not_json, not_utf8
from afina.data.rules.rule import LineFacts
from afina.errors import InvalidRequest


class _Object(msgspec.Struct):
    """Any JSON object: its fields are parsed and dropped, ten times faster than they are kept."""


_GROUP_BYTES = 256 * 1024
_DIGITS = bytes.maketrans(b"0123456789", b"0000000000")
_ODD_NUMBERS = (b"0" * 19, b"0e", b"0E")
_OBJECT = msgspec.json.Decoder(_Object)
_EXPECTED = "Expected file to have JSONL format, where every line is a valid JSON dictionary."


def upload_error(path: Path, limits: CheckLimits | None = None) -> InvalidRequest | None:
    """The 400 for a file that is not JSONL, or None. Everything finer is left to the job, which
    names every row."""
    limits = limits or CheckLimits()
    for lines in _groups(LineReader(path, limits.max_line_bytes)):
        if _are_plainly_objects(lines):
            continue
        for line in lines:
            problem = _problem(line, limits)
            if problem is not None:
                return InvalidRequest(f"{_EXPECTED} Line {line.number}: {problem}", param="file")
    return None


def _groups(lines: Iterable[SourceLine]) -> Iterator[list[SourceLine]]:
    """Lines that are not blank, some hundred kilobytes of them at a time."""
    group: list[SourceLine] = []
    size = 0
    for line in lines:
        if line.is_blank:
            continue
        group.append(line)
        size += line.size
        if size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _problem(line: SourceLine, limits: CheckLimits) -> str | None:
    if line.raw is None:
        return f"it is longer than {limits.max_line_bytes:,} bytes."
    value = quick_value(line.raw, limits.max_depth)
    if isinstance(value, dict):
        return None
    if value is not msgspec.UNSET:
        return "it is JSON, but not an object in braces."
    try:
        text: str | None = line.raw.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    facts = LineFacts(line.raw, line.size, text, limits.max_line_bytes, limits.max_depth)
    for rule in (not_utf8, not_json, not_finite, lone_surrogate):
        for fault in rule(facts):
            return fault.message
    return None


def _are_plainly_objects(lines: Sequence[SourceLine]) -> bool:
    """Whether the parser finds nothing wrong with any; what it does not like is looked at more
    closely, line by line."""
    whole = b"\n".join(line.raw for line in lines if line.raw is not None)
    try:
        if not whole.isascii():
            whole.decode()
        # Numbers beyond all bounds stand in fields that the parser skips.
        digits = whole.translate(_DIGITS)
        if any(odd in digits for odd in _ODD_NUMBERS):
            return False
        return len(_OBJECT.decode_lines(whole)) == len(lines)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
