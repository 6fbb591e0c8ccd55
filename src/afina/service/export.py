"""Export: all that a project owns, in a folder or tar file that needs no afina to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afina.domain.accounts import Caller
from afina.service.platform import Platform


@dataclass(frozen=True)
class ExportReport:
    """What was handed over."""

    path: Path
    files: int
    jobs: int
    models: int
    ledger_entries: int
    bytes: int


def export_project(platform: Platform, caller: Caller, target: Path) -> ExportReport:
    """Writes to `target`: a tar file where the name ends with .tar, else a new or empty folder.
    The list of contents with sha256, `manifest.json`, is written last. Raises InvalidRequest."""
    raise NotImplementedError
