"""Python's collector of cyclic garbage in processes that load large libraries.

torch and transformers make a million objects that stay. At Python's own pace the collector walks
over all of them again and again: a sixth of the time that a trainer needs to load, up to a
fifth of a second at a time.
"""

from __future__ import annotations

import gc

_OBJECTS = 100_000
_TIMES = 20


def load_in_peace() -> None:
    """From now on the collector looks seldom; before anything large is imported."""
    gc.set_threshold(_OBJECTS, _TIMES, _TIMES)


def settle() -> None:
    """What is there stays: the collector looks at what comes after it only."""
    gc.collect()
    gc.freeze()
