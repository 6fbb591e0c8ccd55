"""The input file of a batch: its lines, and what is wrong with them before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from afina.data.lines import LineReader, SourceLine
from afina.data.rows import slow_value
from afina.data.twice import key_twice
from afina.domain.batches import MAX_LINES, Batch, BatchLine
from afina.service.moderation_request import DEFAULT_MODEL
from afina.service.platform import Platform

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
MAX_ERRORS: Final = 100
_FIELDS: Final = frozenset({"custom_id", "method", "url", "body"})
_ID_MOST: Final = 512


@dataclass
class InputReport:
    """What a look at the whole file says."""

    total: int = 0
    model: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        """Notes what is wrong."""
        self.errors.append({"code": code, "message": message, "line": line, "param": param})


def read_lines(platform: Platform, sha256: str) -> Iterator[BatchLine]:
    """The lines of a file that was found good, one in memory at a time."""
    for source in LineReader(platform.blobs.path(sha256), MAX_LINE_BYTES):
        if not source.is_blank and source.raw is not None:
            value = slow_value(source.raw)
            yield BatchLine(source.number, value["custom_id"], value["body"])


def inspect(platform: Platform, batch: Batch, sha256: str) -> InputReport:
    """Reads every line; at most `MAX_ERRORS` faults are told."""
    report = InputReport()
    seen: set[str] = set()
    for source in LineReader(platform.blobs.path(sha256), MAX_LINE_BYTES):
        if source.is_blank:
            continue
        report.total += 1
        if report.total > MAX_LINES:
            report.add("too_many_tasks", f"A batch may have {MAX_LINES} lines.", None)
            break
        _check_line(report, batch, source, seen)
        if len(report.errors) >= MAX_ERRORS:
            break
    if report.total == 0:
        report.add("empty_file", "The file has no lines.", None)
    return report


def _check_line(report: InputReport, batch: Batch, source: SourceLine, seen: set[str]) -> None:
    number = source.number
    if source.raw is None:
        report.add("invalid_json_line", f"It is longer than {MAX_LINE_BYTES} bytes.", number)
        return
    try:
        value = msgspec.json.decode(source.raw)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        report.add("invalid_json_line", "This line is not parseable as valid JSON.", number)
        return
    if not isinstance(value, dict):
        report.add("invalid_json_line", "This line is not a JSON object.", number)
        return
    twice = key_twice(source.raw, value)
    if twice is not None:
        say = f"Duplicate parameter: {twice!r} stands more than once, and only one could count."
        report.add("duplicate_parameter", say, number, twice)
        return
    fault = _fault(report, batch, value, seen)
    if fault is not None:
        report.add(*fault[:2], number, fault[2])


def _fault(
    report: InputReport, batch: Batch, value: Mapping[str, Any], seen: set[str]
) -> tuple[str, str, str] | None:
    custom_id, body = value.get("custom_id"), value.get("body")
    unknown = sorted(set(value) - _FIELDS)
    if unknown:
        return "unknown_parameter", f"Unknown parameter: {unknown[0][:64]!r}.", unknown[0][:64]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _ID_MOST:
        say = f"custom_id must be a string of 1 to {_ID_MOST} characters."
        return "missing_required_parameter", say, "custom_id"
    if custom_id in seen:
        return "duplicate_custom_id", "This custom_id is on an earlier line too.", "custom_id"
    seen.add(custom_id)
    if value.get("method") != "POST":
        return "invalid_method", "The method must be POST.", "method"
    if value.get("url") != batch.endpoint:
        say = f"The url must be {batch.endpoint}, the endpoint of the batch."
        return "mismatched_endpoint", say, "url"
    if not isinstance(body, dict):
        return "missing_required_parameter", "body must be a JSON object.", "body"
    # Of all endpoints, moderation alone has a model of its own where none is named.
    usual = DEFAULT_MODEL if batch.endpoint == "/v1/moderations" else None
    model = body.get("model", usual)
    if not isinstance(model, str):
        return "missing_required_parameter", "The body names no model.", "body.model"
    if report.model is None:
        report.model = model[:300]
    elif model != report.model:
        return "mismatched_model", "All lines of a batch must name one model.", "body.model"
    if body.get("stream"):
        return "invalid_value", "A batch cannot stream.", "body.stream"
    return None
