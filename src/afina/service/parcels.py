"""Where an export is written to: a folder or a tar file, part by part, each with its sha256."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from afina.errors import InvalidRequest

_CHUNK_BYTES = 1024 * 1024


class Sink(Protocol):
    """Takes one part: its name in the export, its bytes and how many they are."""

    def put(self, name: str, source: BinaryIO, size_bytes: int) -> None: ...


@dataclass
class Parcel:
    """A sink and the list of what went into it."""

    sink: Sink
    contents: list[dict[str, str | int]] = field(default_factory=list)

    def add(self, name: str, source: BinaryIO) -> None:
        """Adds a part; `source` can be read twice."""
        size, digest = 0, hashlib.sha256()
        while chunk := source.read(_CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
        source.seek(0)
        self.sink.put(name, source, size)
        self.contents.append({"path": name, "bytes": size, "sha256": digest.hexdigest()})

    @property
    def size_bytes(self) -> int:
        """The bytes of all parts."""
        return sum(int(part["bytes"]) for part in self.contents)


@contextmanager
def open_parcel(target: Path, now: Callable[[], int]) -> Iterator[Parcel]:
    """A tar file where the name ends with .tar, else a folder. Raises InvalidRequest where
    something is there already. A tar file gets its name only when it is whole."""
    if target.suffix == ".tar":
        if target.exists():
            raise InvalidRequest(
                f"{target} is there already.", param="target", remedy="Choose a new name."
            )
        part = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                yield Parcel(_Tar(tar, now))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequest(
            f"{target} is there already and is not an empty folder.",
            param="target",
            remedy="Choose a new or empty folder, or a name that ends with .tar.",
        )
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    yield Parcel(_Folder(target))


@dataclass(frozen=True)
class _Folder:
    root: Path

    def put(self, name: str, source: BinaryIO, size_bytes: int) -> None:  # noqa: ARG002
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)


@dataclass(frozen=True)
class _Tar:
    tar: tarfile.TarFile
    now: Callable[[], int]

    def put(self, name: str, source: BinaryIO, size_bytes: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size_bytes, 0o600, self.now()
        self.tar.addfile(entry, source)
