"""Checks a chat JSONL file against the rules, in one streaming pass of flat memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from afina.domain.findings import Finding
from afina.text.renderer import Renderer


@dataclass(frozen=True)
class CheckLimits:
    """What a file is held against."""

    min_rows: int = 10
    max_line_bytes: int = 8 * 1024 * 1024
    max_depth: int = 64
    max_row_tokens: int | None = None
    """None: the renderer's context window."""
    max_findings: int = 1000
    """Findings kept in the report; all are counted."""


@dataclass(frozen=True)
class CheckReport:
    """What was found. `rows_total` = `rows_usable` + lines with an error; blank lines apart."""

    file: str
    bytes_total: int
    rows_total: int
    rows_usable: int
    blank_lines: int
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    """Findings by rule, those left out of `findings` included."""
    bad_lines: array[int]
    """Lines with an error, ascending."""
    errors: int
    warnings: int
    tokens: int
    """Rendered tokens of the usable rows; 0 without a renderer."""
    learned_tokens: int

    @property
    def has_errors(self) -> bool:
        """Whether a job with this file would fail."""
        return self.errors > 0


def check_file(
    path: Path,
    limits: CheckLimits,
    renderer: Renderer | None,
    progress: Callable[[int, int], None] | None = None,
    name: str | None = None,
) -> CheckReport:
    """All findings of a file. `progress(bytes read, bytes in all)` is called now and then; `name`
    stands in the findings instead of the path's own."""
    raise NotImplementedError


@dataclass(frozen=True)
class CleanReport:
    """What `write_clean` did: `rows_in` = `rows_out` + `rows_dropped`."""

    rows_in: int
    rows_out: int
    rows_dropped: int


def write_clean(path: Path, report: CheckReport, target: Path) -> CleanReport:
    """Writes the usable rows of `path`, byte for byte, to `target`."""
    raise NotImplementedError
