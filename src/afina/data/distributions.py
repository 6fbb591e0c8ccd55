"""How long rows are, in one pass of flat memory: counts in bins that double."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from afina.data.content.texts import row_texts
from afina.data.kinds import RowKind
from afina.data.limits import CheckLimits
from afina.data.lines import LineReader
from afina.data.rows import quick_value

_DEPTH: Final = 64


@dataclass
class Histogram:
    """Values by bins: `bins[n]` counts those over n / 2 and up to n, where n is a power of two."""

    bins: Counter[int] = field(default_factory=Counter)
    count: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, value: int) -> None:
        """One more value, 0 or more."""
        self.bins[1 << max(0, (value - 1).bit_length()) if value > 1 else value] += 1
        self.smallest = value if not self.count else min(self.smallest, value)
        self.largest = max(self.largest, value)
        self.count += 1
        self.total += value

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
            found.append((bound, self.bins[bound]))
        return found


@dataclass(frozen=True)
class Distributions:
    """Of the rows of a file that can be read as its kind."""

    rows: int
    histograms: Mapping[str, Histogram]
    """`messages`, `characters asked`, `characters answered`."""
    without_system: int
    without_user: int


def measure_rows(path: Path, kind: RowKind) -> Distributions:
    """The distributions of a file. Lines that are no rows are passed over; the check names them."""
    names = ("messages", "characters asked", "characters answered")
    messages, asked, answered = (Histogram() for _ in names)
    without: Counter[str] = Counter()
    rows = 0
    for line in LineReader(path, CheckLimits().max_line_bytes):
        value = None if line.raw is None else quick_value(line.raw, _DEPTH)
        if not isinstance(value, dict) or (texts := row_texts(kind, value)) is None:
            continue
        rows += 1
        roles = _roles(kind, value)
        messages.add(len(roles))
        asked.add(len(texts.asked))
        answered.add(len(texts.answer or ""))
        if kind is not RowKind.PROMPT_COMPLETION:
            without["system"] += not {"system", "developer"} & set(roles)
            without["user"] += "user" not in roles
    found = dict(zip(names, (messages, asked, answered), strict=True))
    if kind is RowKind.PROMPT_COMPLETION:
        del found["messages"]
    return Distributions(rows, found, without["system"], without["user"])


def _roles(kind: RowKind, row: dict[str, Any]) -> list[str]:
    chat = row["input"] if kind is RowKind.PREFERENCE else row
    return [str(m.get("role")) for m in chat.get("messages", ()) if isinstance(m, dict)]
