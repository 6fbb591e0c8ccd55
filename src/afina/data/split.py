"""Splits a file into training and validation rows that share nothing.

Where a row goes is decided by the hash of what it asks, so copies stay together, and the same row
goes to the same side whatever else the file holds. By group, all rows of a group stay together;
stratified, every answer keeps its share on both sides.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.cells import cell_text
from afina.data.content.texts import row_texts
from afina.data.kinds import RowKind, kind_of_row
from afina.data.lines import LineReader, SourceLine
from afina.data.rows import quick_value, slow_value
from afina.data.targets import check_targets
from afina.errors import InvalidRequest

_DEPTH: Final = 64
_WHOLE: Final = 1 << 64
_MAX_CLASSES: Final = 1000


@dataclass(frozen=True)
class SplitOptions:
    """How to split. `share`: of the rows, for validation, more than 0 and less than 1."""

    share: float = 0.1
    by: str = "content"
    """content, group or answer (stratified)."""
    group: str | None = None
    """The key of a row, or of its `metadata`, that names its group."""
    seed: int = 0


@dataclass(frozen=True)
class SplitReport:
    """`rows` = `training` + `validation` + `dropped` (lines that are no rows)."""

    rows: int
    training: int
    validation: int
    dropped: int
    groups: int
    """Different questions, groups or answers, by `by`."""


def split_file(
    path: str | Path, training: str | Path, validation: str | Path, options: SplitOptions
) -> SplitReport:
    """Writes both files, byte for byte as the lines stand, whole or not at all; where no line is a
    row, neither."""
    path, training, validation = Path(path), Path(training), Path(validation)
    if not 0 < options.share < 1:
        raise InvalidRequest("The share must be more than 0 and less than 1.", param="share")
    if options.by not in ("content", "group", "answer"):
        raise InvalidRequest(
            "A file is split by content, group or answer.", param="by", remedy="Use one of them."
        )
    if (options.by == "group") != (options.group is not None):
        raise InvalidRequest(
            "Splitting by group needs the group's key, and nothing else does.", param="group"
        )
    check_targets(path, training, validation)
    chosen, groups = _chooser(path, options)
    parts = [target.with_name(target.name + ".part") for target in (training, validation)]
    counts: Counter[str] = Counter()
    try:
        with parts[0].open("wb") as first, parts[1].open("wb") as second:
            for line, row in _rows(path):
                counts["rows"] += 1
                if row is None:
                    counts["dropped"] += 1
                    continue
                where = chosen(line.number, row)
                counts["validation" if where else "training"] += 1
                assert line.raw is not None, "a row was read from it"
                (second if where else first).write(line.raw + b"\n")
        if counts["training"] + counts["validation"]:
            for part, target in zip(parts, (training, validation), strict=True):
                part.replace(target)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return SplitReport(
        counts["rows"], counts["training"], counts["validation"], counts["dropped"], groups()
    )


def _chooser(
    path: Path, options: SplitOptions
) -> tuple[Callable[[int, dict[str, Any]], bool], Callable[[], int]]:
    """Whether a row is for validation, and how many different things decided it."""
    seen: set[int] = set()

    def of(text: str) -> bool:
        number = _number(text, options.seed)
        seen.add(number)
        return number < options.share * _WHOLE

    if options.by == "content":
        return lambda _, row: of(_asked(row)), lambda: len(seen)
    if options.by == "group":
        key = options.group or ""
        return lambda line, row: of(_group(line, row, key)), lambda: len(seen)
    chosen, classes = _stratified(path, options)
    return lambda _, row: _number(_asked(row), options.seed) in chosen, lambda: classes


def _stratified(path: Path, options: SplitOptions) -> tuple[set[int], int]:
    """The questions with the smallest hashes of each answer: its share, and at least one where
    there are two."""
    by_answer: dict[str, set[int]] = {}
    for _, row in _rows(path):
        if row is None:
            continue
        texts = row_texts(kind_of_row(row) or RowKind.CHAT, row)
        answer = "" if texts is None else " ".join((texts.answer or "").lower().split())
        by_answer.setdefault(answer, set()).add(_number(_asked(row), options.seed))
        if len(by_answer) > _MAX_CLASSES:
            raise InvalidRequest(
                f"There are more than {_MAX_CLASSES:,} different answers, which are no classes.",
                param="by",
                remedy="Split by content.",
            )
    chosen: set[int] = set()
    for numbers in by_answer.values():
        count = max(int(len(numbers) > 1), round(options.share * len(numbers)))
        chosen |= set(heapq.nsmallest(count, numbers))
    return chosen, len(by_answer)


def _rows(path: Path) -> Iterator[tuple[SourceLine, dict[str, Any] | None]]:
    for line in LineReader(path, max(1, path.stat().st_size)):
        if line.is_blank or line.raw is None:
            continue
        value = quick_value(line.raw, _DEPTH)
        if value is msgspec.UNSET:
            try:
                value = slow_value(line.raw)
            except (ValueError, RecursionError):
                value = None
        yield line, value if isinstance(value, dict) else None


def _asked(row: dict[str, Any]) -> str:
    """What decides where a row goes: its question, in small letters with single spaces."""
    texts = row_texts(kind_of_row(row) or RowKind.CHAT, row)
    if texts is None or not texts.asked.strip():
        return json.dumps(row, sort_keys=True)
    return " ".join(texts.asked.lower().split())


def _group(line: int, row: dict[str, Any], key: str) -> str:
    metadata = row.get("metadata")
    value = row.get(key, metadata.get(key) if isinstance(metadata, dict) else None)
    if value is None:
        raise InvalidRequest(
            f"The row in line {line:,} has no {key!r}.",
            param="group",
            remedy="Give each row its group, or split by content.",
        )
    return cell_text(value)


def _number(text: str, seed: int) -> int:
    digest = blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
