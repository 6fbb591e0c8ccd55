"""How a trainer is told to stop: a wish in control.json, SIGTERM, or the end of its parent.

Wishes and SIGTERM are obeyed between bins and steps, with a checkpoint. The end of the parent is
watched by afina.domain.orphans; then the process leaves at once, which can harm nothing,
because every file appears whole or not at all.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from afina.domain.jobs import Wish

EXIT_RESUMABLE = 75


class Interrupted(Exception):
    """SIGTERM or a wish came within a step, or before the first one."""


class Stop:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        # no threading.Event: a second signal within its lock would wait for ever
        self._asked = False

    def ask(self) -> None:
        """What the signal does; tests call it too."""
        self._asked = True

    @property
    def asked(self) -> bool:
        return self._asked

    def listen(self) -> None:
        """Takes SIGTERM from now on. Ctrl-C belongs to the supervisor and is left alone."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.ask())
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def read_epochs(control: Path) -> int | None:
    """How many epochs the budget has in all; None is no limit."""
    try:
        epochs = json.loads(control.read_bytes()).get("epochs")
        return None if epochs is None else int(epochs)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def read_wish(control: Path) -> Wish | None:
    """The wish in control.json; a missing or half-written file wishes nothing."""
    try:
        wish = json.loads(control.read_bytes())["wish"]
        return Wish(wish) if wish is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
