"""Waiting for an engine that is about to come: one that starts, was restarted, or is busy.

The parts of a platform start together, and the worker is ready before the engine: a job that gave
up at the first refusal would go unmoderated for a matter of seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from afina.errors import AfinaError, EngineFailed, Overloaded, Unavailable

T = TypeVar("T")
BREAKS: Final = 3
"""An engine that breaks off so often breaks because of what it is asked."""
_PAUSE_S: Final = 0.5
_NEVER: Final = frozenset({"encoder_missing", "moderation_off"})
"""What does not change by waiting."""


@dataclass
class Patience:
    """How long a job still waits; one answer makes it whole again. Any thread may ask."""

    now: Callable[[], float]
    limit_s: float
    """An engine that is away for longer than this is not about to come."""
    pause: Callable[[float], None] = time.sleep
    _since: float | None = None
    _breaks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self,
        act: Callable[[], T],
        check: Callable[[], None],
        waiting: Callable[[AfinaError], None] = lambda _: None,
    ) -> T:
        """What `act` brings. `waiting` is told what for when the wait begins, and `check` raises
        where it is no longer wanted. Raises what `act` raises once patience is at its end."""
        while True:
            try:
                found = act()
            except (Unavailable, Overloaded, EngineFailed) as error:
                if self._is_over(error, waiting):
                    raise
                check()
                self.pause(_PAUSE_S)
            else:
                with self._lock:
                    self._since, self._breaks = None, 0
                return found

    def _is_over(
        self, error: Unavailable | Overloaded | EngineFailed, waiting: Callable[[AfinaError], None]
    ) -> bool:
        if error.code in _NEVER:
            return True
        with self._lock:
            self._breaks += isinstance(error, EngineFailed)
            begun, self._since = self._since, self.now() if self._since is None else self._since
            over = self._breaks >= BREAKS or self.now() - self._since >= self.limit_s
        if begun is None and not over:
            waiting(error)
        return over
