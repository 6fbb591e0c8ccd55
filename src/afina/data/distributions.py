"""How long rows are, in one pass of flat memory: counts in bins that double."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from afina.data.beside import Work, processes_for, run_chunks
from afina.data.chunks import Chunk, chunks_of
from afina.data.content.texts import row_texts
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.rows import quick_value

_DEPTH: Final = 64
_WORTH_BYTES: Final = 32 << 20
"""From so many bytes on several processes are faster than one."""


class Histogram(msgspec.Struct):
    """Values by bins: `bins[n]` counts those over n / 2 and up to n, where n is a power of two."""

    bins: dict[int, int] = msgspec.field(default_factory=dict)
    count: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, value: int) -> None:
        """One more value, 0 or more."""
        place = 1 << max(0, (value - 1).bit_length()) if value > 1 else value
        self.bins[place] = self.bins.get(place, 0) + 1
        self.smallest = value if not self.count else min(self.smallest, value)
        self.largest = max(self.largest, value)
        self.count += 1
        self.total += value

    def add_histogram(self, other: Histogram) -> None:
        """Values that were counted elsewhere."""
        if not other.count:
            return
        for place, count in other.bins.items():
            self.bins[place] = self.bins.get(place, 0) + count
        both = self.count > 0
        self.smallest = min(self.smallest, other.smallest) if both else other.smallest
        self.largest = max(self.largest, other.largest)
        self.count += other.count
        self.total += other.total

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def filled(self) -> list[tuple[int, int]]:
        """(upper bound, count) from the first bin with a value to the last, gaps as zeros."""
        bounds = sorted(self.bins)
        if not bounds:
            return []
        found, bound = [(bounds[0], self.bins[bounds[0]])], bounds[0]
        while bound < bounds[-1]:
            bound = bound * 2 if bound else 1
            found.append((bound, self.bins.get(bound, 0)))
        return found


@dataclass(frozen=True)
class Distributions:
    """Of the rows of a file that can be read as its kind."""

    rows: int
    histograms: Mapping[str, Histogram]
    """`messages`, `characters asked`, `characters answered`."""
    without_system: int
    without_user: int


class MeasureSetup(msgspec.Struct, frozen=True):
    """What is measured."""

    path: str
    kind: RowKind


class Measured(msgspec.Struct):
    """The rows of one part."""

    rows: int = 0
    messages: Histogram = msgspec.field(default_factory=Histogram)
    asked: Histogram = msgspec.field(default_factory=Histogram)
    answered: Histogram = msgspec.field(default_factory=Histogram)
    without_system: int = 0
    without_user: int = 0


def _begin(setup: MeasureSetup) -> Callable[[Chunk], Measured]:
    return lambda chunk: _measure(setup, chunk)


WORK: Final = Work(__name__, MeasureSetup, Measured, _begin)


def measure_rows(
    path: Path,
    kind: RowKind,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> Distributions:
    """The distributions of a file. Lines that are no rows are passed over; the check names them."""
    whole = Measured()
    total = path.stat().st_size
    setup = MeasureSetup(str(path.absolute()), kind)
    count = processes_for(path, _WORTH_BYTES) if processes is None else processes
    with closing(run_chunks(WORK, setup, chunks_of(path), count)) as parts:
        for chunk, part in parts:
            whole.rows += part.rows
            whole.messages.add_histogram(part.messages)
            whole.asked.add_histogram(part.asked)
            whole.answered.add_histogram(part.answered)
            whole.without_system += part.without_system
            whole.without_user += part.without_user
            if progress is not None:
                progress(chunk.end, total)
    found = {
        "messages": whole.messages,
        "characters asked": whole.asked,
        "characters answered": whole.answered,
    }
    if kind is RowKind.PROMPT_COMPLETION:
        del found["messages"]
    return Distributions(whole.rows, found, whole.without_system, whole.without_user)


def _measure(setup: MeasureSetup, chunk: Chunk) -> Measured:
    part = Measured()
    for line in chunk.lines(Path(setup.path), CheckLimits().max_line_bytes):
        value = None if line.raw is None else quick_value(line.raw, _DEPTH)
        if not isinstance(value, dict) or (texts := row_texts(setup.kind, value)) is None:
            continue
        part.rows += 1
        roles = _roles(setup.kind, value)
        part.messages.add(len(roles))
        part.asked.add(len(texts.asked))
        part.answered.add(len(texts.answer or ""))
        if setup.kind is not RowKind.PROMPT_COMPLETION:
            part.without_system += not {"system", "developer"} & set(roles)
            part.without_user += "user" not in roles
    return part


def _roles(kind: RowKind, row: dict[str, Any]) -> list[str]:
    chat = row["input"] if kind is RowKind.PREFERENCE else row
    return [str(m.get("role")) for m in chat.get("messages", ()) if isinstance(m, dict)]
