"""How far a job's preparation is: a small file in its run directory, for pages alone.

The worker writes it while a stage reads the rows. It is no truth about the job: where it is missing
or torn, nobody knows how far the work is, and that is all. On several machines the api does not see
the worker's directory and shows the stage without a share.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from afina.domain.clock import Clock

NAME: Final = "preparing.json"
EVERY_S: Final = 0.5


class PreparingNote:
    """Notes how much of a stage is done, at most every `EVERY_S` seconds."""

    def __init__(self, run: Path, clock: Clock) -> None:
        self._path = run / NAME
        self._clock = clock
        self._noted: float | None = None

    def note(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` bytes or rows of the stage are read."""
        now = self._clock.monotonic()
        if total <= 0 or (self._noted is not None and now - self._noted < EVERY_S):
            return
        self._noted = now
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{NAME}")
        partial.write_text(json.dumps({"stage": stage, "share": min(done / total, 1.0)}))
        partial.replace(self._path)

    def forget(self) -> None:
        """The stage is over."""
        self._noted = None
        self._path.unlink(missing_ok=True)


def prepared_share(run: Path, stage: str) -> float | None:
    """From 0 to 1, how much of this stage is done; None where that is not known."""
    try:
        told = json.loads((run / NAME).read_text())
        return float(told["share"]) if told["stage"] == stage else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
