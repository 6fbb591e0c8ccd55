"""Sweeping: expired files, bytes that nobody refers to, and what crashes left behind."""

from __future__ import annotations

from dataclasses import dataclass

from afina.service.platform import Platform


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed."""

    expired_files: int = 0
    blobs: int = 0
    staged: int = 0
    bytes: int = 0


def sweep(platform: Platform, older_than_s: float = 900.0) -> SweepReport:
    """Removes what is expired, and orphans that are older than `older_than_s`."""
    raise NotImplementedError
