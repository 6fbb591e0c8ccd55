"""Drains the engine's usage journal into the ledger: every request once, whatever is killed.

The offset is kept beside the journal and written after the store has the records; what is read
twice for a death in between, the store recognises by its request id. A long journal is renamed
away, which the engine notices at its next record; the old one goes once the new one has a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from afina.pipeline.run_files import write_json
from afina.serving.protocol import UsageRecord

ROTATE_BYTES: Final = 4 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024
log = structlog.get_logger()


class JournalDrain:
    """The reading end of `settings.journal`; one worker thread owns it."""

    def __init__(self, path: Path, record: Callable[[Sequence[UsageRecord]], int]) -> None:
        self._path = path
        self._old = path.with_suffix(".old.jsonl")
        self._marks = path.with_suffix(".offset")
        self._record = record
        self._decoder = msgspec.json.Decoder(UsageRecord)

    def drain(self) -> int:
        """Bring everything that stands in the journal into the ledger; how many were new."""
        marks = self._read_marks()
        before = dict(marks)
        left_old = self._old.exists() and _size(self._path) > 0
        new = self._drain_file(self._old, marks) + self._drain_file(self._path, marks)
        self._turn_over(marks, left_old)
        if marks != before:
            write_json(self._marks, marks)
        return new

    def _drain_file(self, path: Path, marks: dict[str, int]) -> int:
        new = 0
        try:
            with path.open("rb") as file:
                key = str(path.stat().st_ino)
                file.seek(marks.get(key, 0))
                while whole := _whole_lines(file.read(CHUNK_BYTES)):
                    records = [r for line in whole.splitlines() if (r := self._decode(line))]
                    new += self._record(records)
                    marks[key] = marks.get(key, 0) + len(whole)
                    file.seek(marks[key])
        except FileNotFoundError:
            pass
        return new

    def _turn_over(self, marks: dict[str, int], left_old: bool) -> None:
        """`left_old`: the engine wrote to the new file before we read the old one to its end, so
        the old one is complete and read."""
        if left_old:
            marks.pop(str(self._old.stat().st_ino), None)
            self._old.unlink()
        elif not self._old.exists() and _size(self._path) >= ROTATE_BYTES:
            self._path.rename(self._old)

    def _decode(self, line: bytes) -> UsageRecord | None:
        try:
            return self._decoder.decode(line)
        except msgspec.DecodeError:
            log.error("journal.bad_line", file=str(self._path), bytes=len(line))
            return None

    def _read_marks(self) -> dict[str, int]:
        try:
            marks = json.loads(self._marks.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(key): int(value) for key, value in marks.items()}


def _whole_lines(raw: bytes) -> bytes:
    return raw[: raw.rfind(b"\n") + 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
