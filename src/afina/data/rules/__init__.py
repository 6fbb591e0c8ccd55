"""The rules of the check: one small function each, listed in `registry`."""

from __future__ import annotations

from afina.data.rules.registry import ALL_RULES, catalogue

__all__ = ["ALL_RULES", "catalogue"]
