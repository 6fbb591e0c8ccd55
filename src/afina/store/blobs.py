"""Immutable bytes on the local disk, named by their sha256 (`domain.manifests.blob_path`).

Writing is in two steps: `stage` streams into a temporary file and syncs it, and `admit`, inside
the write transaction that adds the reference, renames it to its name. `remove` runs inside a write
transaction too and only for what no row refers to, so a blob that someone has just referred to
cannot be lost. What a crash leaves behind is found by `orphans` and `sweep_staged`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class StagedBlob:
    """Bytes on the disk, synced, without a name yet."""

    path: Path
    sha256: str
    bytes: int
    head: bytes
    """The first bytes, for cheap checks."""


class LocalBlobs:
    """The blob store below a folder (DATA/blobs)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, source: Iterable[bytes], max_bytes: int | None = None) -> StagedBlob:
        """Streams `source` to the disk. Raises TooLarge beyond `max_bytes`."""
        raise NotImplementedError

    def stage_file(self, path: Path) -> StagedBlob:
        """Stages a copy of the file `path`."""
        raise NotImplementedError

    def discard(self, staged: StagedBlob) -> None:
        """Drops staged bytes that were not admitted."""
        raise NotImplementedError

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes. Raises Internal if it is missing."""
        raise NotImplementedError

    def path(self, sha256: str) -> Path:
        """Where the blob lies."""
        raise NotImplementedError
