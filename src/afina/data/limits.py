"""What a training or validation file is held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckLimits:
    """The limits of a check. Validation files need only one row: `min_rows=1`."""

    min_rows: int = 10
    max_line_bytes: int = 8 * 1024 * 1024
    max_depth: int = 64
    max_row_tokens: int | None = None
    """None: the renderer's context window. Never more than that."""
    max_findings: int = 1000
    """Findings kept in the report; all are counted."""
    max_bad_rows: int = 100_000
    """The check stops, and says so, when this many rows have errors."""
