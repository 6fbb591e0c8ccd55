"""events.jsonl: what the trainer says, one line an event, numbered without gaps.

A resume cuts the file back to the length that its checkpoint names and says the same things again
under the same numbers, so a reader that has seen them counts nothing twice. No text of a training
row ever goes in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from afina.domain.clock import SYSTEM_CLOCK, Clock
from afina.domain.codec import encode
from afina.domain.runs import RunEvent, RunPaths
from afina.domain.sayings import Said, text_of

Kind = Literal["started", "step", "checkpoint", "warning", "finished", "failed", "stopped"]


class EventLog:
    """Appends events."""

    def __init__(
        self, path: Path, *, length: int = 0, next_sequence: int = 1, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.path = path
        self.next_sequence = next_sequence
        self._clock = clock
        self._held: list[bytes] | None = None
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._file.truncate(length)
        self._file.seek(length)

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def append(self, kind: Kind, data: Mapping[str, Any] | None = None) -> None:
        """Writes one event, whole."""
        event = RunEvent(self.next_sequence, self._clock.now(), kind, data or {})
        text = json.dumps(encode(event), separators=(",", ":"), allow_nan=False)
        line = text.encode() + b"\n"
        if self._held is None:
            self._file.write(line)
        else:
            self._held.append(line)
        self.next_sequence += 1

    def warn(self, code: str, *said: Said) -> None:
        """Writes a warning: its words, and the names by which other languages say it."""
        self.append("warning", {"code": code, "message": text_of(said), "said": said})

    def hold(self) -> None:
        """Keeps back what is appended from now on, until `release`."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Writes what was kept back, in its order."""
        held, self._held = self._held, None
        if held:
            self._file.write(b"".join(held))

    def sync(self) -> None:
        """Returns when what was appended is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def tell_failure(root: Path, failure: Mapping[str, object]) -> None:
    """Appends the `failed` event to a run's log, after whatever whole lines stand there."""
    paths = RunPaths(root)
    raw = paths.events.read_bytes() if paths.events.exists() else b""
    whole = raw[: raw.rfind(b"\n") + 1]
    lines = whole.count(b"\n")
    log = EventLog(paths.events, length=len(whole), next_sequence=lines + 1)
    log.append("failed", failure)
    log.sync()
    log.close()
