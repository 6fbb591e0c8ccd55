"""Where a watched job is: what its events add up to, without a terminal or a server.

`Progress.take` is given events oldest first, each once; everything shown is derived from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass
class Progress:
    """The state of one job as its events tell it."""

    step: int = 0
    total_steps: int = 0
    losses: list[float] = field(default_factory=list)
    valid_loss: float | None = None
    _first: tuple[int, float] | None = None
    _rate: float | None = None

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Count one event in; `now` is a monotonic time in seconds."""
        if event.get("type") != "metrics":
            return
        data = event.get("data") or {}
        step = int(data.get("step", 0))
        if step < self.step:  # a trainer that crashed goes on from its last checkpoint
            self.losses = self.losses[: max(step - 1, 0)]
            self._first = None
        self.step = step
        self.total_steps = int(data.get("total_steps", self.total_steps))
        if "train_loss" in data:
            self.losses.append(float(data["train_loss"]))
        valid = data.get("full_valid_loss", data.get("valid_loss"))
        if valid is not None:
            self.valid_loss = float(valid)
        self._pace(now)

    def _pace(self, now: float) -> None:
        if self._first is None:
            self._first = (self.step, now)
            return
        step, then = self._first
        # What was there before we looked arrives all at once and says nothing about the pace.
        if now - then < 0.25:
            self._first = (self.step, then)
        elif self.step > step:
            self._rate = (self.step - step) / (now - then)

    @property
    def seconds_left(self) -> float | None:
        """How long the remaining steps take at the pace seen so far."""
        if not self._rate or not self.total_steps:
            return None
        return max(0, self.total_steps - self.step) / self._rate

    @property
    def loss(self) -> float | None:
        """The mean of the last tenth of the losses: single rows are noisy."""
        if not self.losses:
            return None
        recent = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(recent) / len(recent)


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The course of `values` in at most `width` characters, each a mean of its share."""
    if not values:
        return ""
    width = min(width, len(values))
    bounds = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds) if b > a]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
