"""Immutable bytes on the local disk, named by their sha256 (`domain.manifests.blob_path`).

Writing is in two steps: `stage` streams into a temporary file and syncs it; `place` renames it to
its name. `place` and `unlink` are called inside write transactions alone (`store.references`), so
a blob that someone has just referred to cannot be lost. What a crash leaves is found by `stored`
and `staged_files`. An error of the disk is final: nothing here tries again.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from afina.domain.manifests import blob_path
from afina.errors import Internal, TooLarge, Unavailable

CHUNK_BYTES: Final = 1024 * 1024
_HEAD_BYTES: Final = 4096


@dataclass(frozen=True)
class StagedBlob:
    """Bytes on the disk, synced, without a name yet."""

    path: Path
    sha256: str
    size_bytes: int
    head: bytes
    """The first bytes, for cheap checks."""


class BlobWriter:
    """Bytes on their way to the disk, hashed as they come."""

    def __init__(self, file: io.RawIOBase, path: Path, max_bytes: int | None) -> None:
        self._file = file
        self._path = path
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._head = b""
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Appends. Raises TooLarge, and Unavailable where the disk is full."""
        self.size_bytes += len(chunk)
        if self._max_bytes is not None and self.size_bytes > self._max_bytes:
            raise TooLarge(
                f"The file is larger than {self._max_bytes} bytes.",
                param="file",
                code="request_too_large",
                remedy="Split it, or raise AFINA_MAX_UPLOAD_BYTES on the server.",
            )
        if len(self._head) < _HEAD_BYTES:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
        self._digest.update(chunk)
        rest = memoryview(chunk)
        with _plain_words():
            while rest:
                rest = rest[self._file.write(rest) or 0 :]

    def finish(self) -> StagedBlob:
        """Syncs the bytes; they have no name yet."""
        with _plain_words():
            os.fsync(self._file.fileno())
            self._file.close()
        return self.written

    @property
    def written(self) -> StagedBlob:
        """What `finish` gives: it can be read before the disk has it."""
        return StagedBlob(self._path, self._digest.hexdigest(), self.size_bytes, self._head)

    def discard(self) -> None:
        """Drops what was written."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class LocalBlobs:
    """The blob store below a folder (DATA/blobs)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, source: Iterable[bytes], max_bytes: int | None = None) -> StagedBlob:
        """Streams `source` to the disk. Raises TooLarge beyond `max_bytes`."""
        writer = self.writer(max_bytes)
        try:
            for chunk in source:
                writer.write(chunk)
            return writer.finish()
        except BaseException:
            writer.discard()
            raise

    def writer(self, max_bytes: int | None = None) -> BlobWriter:
        """`stage` for bytes that are pushed: write, then `finish` or `discard`."""
        file, path = self._staged_file()
        return BlobWriter(file, path, max_bytes)

    def stage_file(self, path: Path) -> StagedBlob:
        """Stages a copy of the file `path`."""
        with path.open("rb") as file:
            return self.stage(iter(lambda: file.read(CHUNK_BYTES), b""))

    def discard(self, staged: StagedBlob) -> None:
        """Drops staged bytes that were not admitted."""
        staged.path.unlink(missing_ok=True)

    def place(self, staged: StagedBlob) -> None:
        """Gives staged bytes their name. The bytes are the same if the name was there before."""
        target = blob_path(self.root, staged.sha256)
        with _plain_words():
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _sync_folder(target.parent.parent)
            staged.path.replace(target)
            _sync_folder(target.parent)

    def unlink(self, sha256: str) -> None:
        """Removes a blob's bytes, if they are there."""
        path = blob_path(self.root, sha256)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes. Raises Internal if they are missing."""
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError:
            raise Internal(f"The stored bytes {sha256[:12]}… are missing from the disk.") from None

    def read(self, sha256: str) -> bytes:
        """All of a small blob's bytes. Raises Internal if they are missing."""
        with self.open(sha256) as file:
            return file.read()

    def path(self, sha256: str) -> Path:
        """Where the blob lies."""
        return blob_path(self.root, sha256)

    def stored(self) -> Iterator[tuple[str, float]]:
        """The sha256 and modification time of every blob on the disk."""
        for folder in sorted((self.root / "sha256").glob("??")):
            for entry in sorted(folder.iterdir()):
                try:
                    yield folder.name + entry.name, entry.stat().st_mtime
                except FileNotFoundError:
                    continue

    def staged_files(self) -> Iterator[tuple[Path, float]]:
        """Temporary files and their modification times: uploads under way, or left by a crash."""
        if not self._staging.is_dir():
            return
        for entry in sorted(self._staging.iterdir()):
            try:
                yield entry, entry.stat().st_mtime
            except FileNotFoundError:
                continue

    def _staged_file(self) -> tuple[io.RawIOBase, Path]:
        with _plain_words():
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
            number, name = tempfile.mkstemp(dir=self._staging)
        return os.fdopen(number, "wb", buffering=0), Path(name)

    @property
    def _staging(self) -> Path:
        return self.root / "staging"


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _plain_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise Unavailable(
                "The disk of the data directory is full.", remedy="Free some space on the server."
            ) from error
        raise
