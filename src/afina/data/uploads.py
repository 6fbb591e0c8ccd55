"""What an upload for fine-tuning is refused for at once: lines that are no JSON objects."""

from __future__ import annotations

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


_BLOCK_BYTES = 256 * 1024
"""The parser holds the interpreter for so many bytes, while others want to answer."""
_DIGITS = bytes.maketrans(b"0123456789E", b"0000000000e")
_ODD_NUMBERS = (b"0" * 19, b"0e")
_OBJECT = msgspec.json.Decoder(_Object)
_EXPECTED = "Expected file to have JSONL format, where every line is a valid JSON dictionary."


def upload_error(path: Path, limits: CheckLimits | None = None) -> InvalidRequest | None:
    """The 400 for a file that is not JSONL, or None. Everything finer is left to the job, which
    names every row."""
    limits = limits or CheckLimits()
    reader = LineReader(path, limits.max_line_bytes, block_bytes=_BLOCK_BYTES)
    for group in reader.groups():
        text = group.text
        if text is not None and group.size <= limits.max_line_bytes and _are_plainly_objects(text):
            continue
        for line in reader.lines_of(group):
            problem = None if line.is_blank else _problem(line, limits)
            if problem is not None:
                return InvalidRequest(f"{_EXPECTED} Line {line.number}: {problem}", param="file")
    return None


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


def _are_plainly_objects(text: bytes) -> bool:
    """Whether the parser finds nothing wrong with any line, and none is blank; what it does not
    like is looked at more closely, line by line."""
    try:
        if not text.isascii():
            text.decode()
        # Numbers beyond all bounds stand in fields that the parser skips.
        digits = text.translate(_DIGITS)
        if any(odd in digits for odd in _ODD_NUMBERS):
            return False
        # The parser takes line ends for any space. Inside a value nothing stands between } and {
        # without a comma, so where all ends of lines do, each ends an object.
        ends = text.count(b"\n")
        return text.count(b"}\n{") == ends == len(_OBJECT.decode_lines(text)) - 1
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
