"""What an upload for fine-tuning is refused for at once: lines that are no JSON objects."""

from __future__ import annotations

import re
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


_ODD_NUMBER = re.compile(rb"[0-9](?:[eE]|[0-9]{18})")
"""Digits that may be a number beyond all bounds, whose fields the parser would skip."""
_OBJECT = msgspec.json.Decoder(_Object)
_EXPECTED = "Expected file to have JSONL format, where every line is a valid JSON dictionary."


def upload_error(path: Path, limits: CheckLimits | None = None) -> InvalidRequest | None:
    """The 400 for a file that is not JSONL, or None. Everything finer is left to the job, which
    names every row."""
    limits = limits or CheckLimits()
    for line in LineReader(path, limits.max_line_bytes):
        if line.is_blank:
            continue
        problem = _problem(line, limits)
        if problem is not None:
            return InvalidRequest(f"{_EXPECTED} Line {line.number}: {problem}", param="file")
    return None


def _problem(line: SourceLine, limits: CheckLimits) -> str | None:
    if line.raw is None:
        return f"it is longer than {limits.max_line_bytes:,} bytes."
    if _is_plainly_an_object(line.raw):
        return None
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


def _is_plainly_an_object(raw: bytes) -> bool:
    """Whether the parser finds nothing wrong; what it does not like is looked at more closely."""
    try:
        if not raw.isascii():
            raw.decode()
        if _ODD_NUMBER.search(raw):
            return False
        _OBJECT.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False
    return True
