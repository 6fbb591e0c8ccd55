"""`afina doctor`."""

from __future__ import annotations


def doctor() -> None:
    """Say what is missing or wrong."""
