"""Fewer points of a very long run, so that its page opens at once: nothing that would be seen of
the whole curve is left out.

Of each part of the run the steps with the least and the most training loss and validation loss
stay, and every step that has the loss of the whole validation file; first and last stay.
"""

from __future__ import annotations

from typing import Any, Final

MOST: Final = 20_000
"""Runs with fewer steps are shown whole."""
_PARTS: Final = 4_000
_TRAIN, _VALID, _WHOLE = 2, 4, 6
"""Where a point holds these losses: see `afina.web.live.point`."""


def thin(points: list[list[Any]]) -> list[list[Any]]:
    """The same points, or those that can be seen of more than `MOST`."""
    if len(points) <= MOST:
        return points
    kept = {0, len(points) - 1}
    kept.update(place for place, found in enumerate(points) if found[_WHOLE] is not None)
    for part in range(_PARTS):
        places = range(part * len(points) // _PARTS, (part + 1) * len(points) // _PARTS)
        for column in (_TRAIN, _VALID):
            known = [place for place in places if points[place][column] is not None]
            if known:
                kept.add(min(known, key=lambda place: points[place][column]))
                kept.add(max(known, key=lambda place: points[place][column]))
    return [points[place] for place in sorted(kept)]
