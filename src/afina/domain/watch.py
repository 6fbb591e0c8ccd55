"""The abuse watch: who asked which model how often for what is flagged, and what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HOUR_S: Final = 3600
LOOKED_AT: Final = ""
FLAGGED: Final = "*"
UNSEEN: Final = "!"
MASKED: Final = "~"
"""Names in the tally beside those of the categories: texts that were looked at, that were flagged
at all, that nobody could look at; places that were masked in answers."""
RELEASED: Final = "released"


@dataclass(frozen=True)
class Watched:
    """Whose question or answer it is. `key_id` is empty for who came with a session."""

    project_id: str
    key_id: str
    organization_id: str
    model: str


@dataclass(frozen=True)
class WatchState:
    """What was done about a key and a model: `alert`, `block`, `suspend`, or `released`."""

    project_id: str
    key_id: str
    model: str
    state: str
    since: int
    looked_at: int
    flagged: int


@dataclass(frozen=True)
class WatchTally:
    """How often a key's texts for a model were flagged in the window; never a text."""

    project_id: str
    key_id: str
    model: str
    counts: Mapping[str, int] = field(default_factory=dict)
    state: WatchState | None = None

    @property
    def looked_at(self) -> int:
        return self.counts.get(LOOKED_AT, 0)

    @property
    def flagged(self) -> int:
        return self.counts.get(FLAGGED, 0)

    @property
    def categories(self) -> dict[str, int]:
        """Flagged texts by category, the most frequent first."""
        named = {
            n: c for n, c in self.counts.items() if n not in (LOOKED_AT, FLAGGED, UNSEEN, MASKED)
        }
        return dict(sorted(named.items(), key=lambda item: -item[1]))
