"""What a training or validation file is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from afina.data.kinds import KINDS_OF_METHOD, RowKind

MIN_TRAINING_ROWS: Final = 10
_RFT_ROWS: Final = (50_000, 1_000)
"""Of training and of validation."""


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
    kinds: tuple[RowKind, ...] | None = None
    """The kinds of rows that a job can use (`KINDS_OF_METHOD`); None: whatever the first row is."""
    max_rows: int | None = None
    """For reinforcement: 50,000 rows of training, 1,000 of validation."""


def limits_of(
    method: str | None, validation: bool, max_row_tokens: int | None = None
) -> CheckLimits:
    """The limits for a file of a job with this method; None: any kind of rows."""
    return CheckLimits(
        min_rows=1 if validation else MIN_TRAINING_ROWS,
        max_row_tokens=max_row_tokens,
        kinds=None if method is None else KINDS_OF_METHOD[method],
        max_rows=_RFT_ROWS[validation] if method == "reinforcement" else None,
    )
