"""Renderers of the base models here, each loaded once: for estimates and checks in the API."""

from __future__ import annotations

import functools
from pathlib import Path

from afina.domain.models import BaseModel
from afina.text.renderer import Renderer


def renderer_of(base: BaseModel) -> Renderer:
    """The base's renderer."""
    return _loaded(base.path, base.sha256)


@functools.lru_cache(maxsize=8)
def _loaded(path: str, sha256: str) -> Renderer:  # noqa: ARG001 - the hash is the cache's key
    return Renderer.load(Path(path))
