"""The rules of the check: one small function each, listed in `registry`, shown by `pages`."""

from __future__ import annotations

from afina.data.rules.registry import ALL_RULES

__all__ = ["ALL_RULES"]
