"""Stop strings in a text that grows: what may be shown, and when to end.

Text that could be the beginning of a stop string is held back until it is known not to be one, so
that no part of a stop string is ever streamed.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """The text of one answer on its way out."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop string was found: nothing more comes out."""

    def push(self, text: str) -> str:
        """More text; returns what may be shown now."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            # The one that is complete first, as if the text came letter by letter.
            self.stopped = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """What was held back, once no more text can come."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
