"""Every way in which the kernels are made, for tests of what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from afina.model.kernels import library
from afina.model.kernels.library import HALVES, SLOW_TILES, TILES, VECTORS, WIDE, Way

WAYS = [
    pytest.param(way, id=way.name.replace(" ", "-"))
    for way in (HALVES, WIDE, VECTORS, TILES, SLOW_TILES)
]


@contextmanager
def kernels_made(way: Way) -> Iterator[None]:
    """In here the kernels are those of one way; skips where this machine cannot make them."""
    found = library.load_way(way)
    if found.kernels is None:
        pytest.skip(found.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "loaded", lambda: found)
        yield
