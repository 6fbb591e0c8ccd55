"""How long nothing has changed, as one who looks again and again can say it.

Two looks that are far apart count as little: who slept in between (a suspended machine, a stopped
group of processes) has seen nothing in that time and may blame nobody for it.
"""

from __future__ import annotations

from collections.abc import Hashable


class Silence:
    """Seconds for which the signs of somebody's life have stayed the same."""

    def __init__(self, longest_look_s: float) -> None:
        self._longest_look_s = longest_look_s
        self._signs: Hashable = None
        self._looked = 0.0
        self._lasted = 0.0

    def look(self, now: float, signs: Hashable) -> float:
        """Take note of what is seen `now`, by a monotonic clock; the silence so far."""
        if signs != self._signs:
            self._signs, self._lasted = signs, 0.0
        else:
            self._lasted += min(now - self._looked, self._longest_look_s)
        self._looked = now
        return self._lasted
