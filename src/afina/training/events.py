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
from afina.domain.runs import RunEvent

Kind = Literal["started", "step", "checkpoint", "warning", "finished", "failed", "stopped"]


class EventLog:
    """Appends events."""

    def __init__(
        self, path: Path, *, length: int = 0, next_sequence: int = 1, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.path = path
        self.next_sequence = next_sequence
        self._clock = clock
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
        self._file.write(text.encode() + b"\n")
        self.next_sequence += 1

    def sync(self) -> None:
        """Returns when what was appended is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
