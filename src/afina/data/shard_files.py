"""One file of shards: written whole and renamed, read through a memory map.

Reading goes by the header of the safetensors format itself (its length in eight bytes, then JSON
with the place of each tensor), so that a file of any size costs no memory until rows are asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from afina.errors import DataUnreadable

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_TENSORS: Final = {"ids": "I32", "learned": "U8", "offsets": "I64", "lines": "I64"}
_HEADER_LIMIT: Final = 1 << 20


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@dataclass(frozen=True)
class WrittenShard:
    """A file as the manifest tells of it."""

    name: str
    sha256: str
    rows: int
    tokens: int


class ShardWriter:
    """Collects rows and writes a file whenever `shard_tokens` are there."""

    def __init__(self, folder: Path, shard_tokens: int) -> None:
        self._folder = folder
        self._shard_tokens = shard_tokens
        self._parts: list[_Rows] = []
        self._waiting = 0
        self._written: list[WrittenShard] = []
        self.rows = self.tokens = self.learned_tokens = self.longest_row = 0

    def add_rows(
        self,
        ids: NDArray[np.int32],
        learned: NDArray[np.uint8],
        lengths: NDArray[np.int64],
        lines: NDArray[np.int64],
    ) -> None:
        """The next rows: all their ids behind each other, with loss where `learned` is 1; the
        length of each, and the line of the source that it is from."""
        ends = np.cumsum(lengths)
        self.rows += len(lengths)
        self.tokens += len(ids)
        self.learned_tokens += int(learned.sum())
        self.longest_row = max(self.longest_row, int(lengths.max(initial=0)))
        row = token = 0
        while row < len(lengths):
            # up to the row with which enough tokens are there
            missing = self._shard_tokens - self._waiting
            last = int(np.searchsorted(ends, token + missing)) + 1
            last = min(last, len(lengths))
            end = int(ends[last - 1])
            self._parts.append(
                _Rows(ids[token:end], learned[token:end], lengths[row:last], lines[row:last])
            )
            self._waiting += end - token
            row, token = last, end
            if self._waiting >= self._shard_tokens:
                self._write()

    def finish(self) -> list[WrittenShard]:
        """Writes what is left; the files in their order."""
        if self._parts:
            self._write()
        return self._written

    def _write(self) -> None:
        parts, self._parts = self._parts, []
        lengths = np.concatenate([part.lengths for part in parts])
        content = save(
            {
                "ids": np.concatenate([part.ids for part in parts]),
                "learned": np.concatenate([part.learned for part in parts]),
                "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                "lines": np.concatenate([part.lines for part in parts]),
            }
        )
        name = f"shard-{len(self._written):05d}.safetensors"
        replace_file(self._folder / name, content)
        digest = hashlib.sha256(content).hexdigest()
        self._written.append(WrittenShard(name, digest, len(lengths), self._waiting))
        self._waiting = 0


@dataclass(frozen=True)
class _Rows:
    """Rows that wait to be written."""

    ids: NDArray[np.int32]
    learned: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    lines: NDArray[np.int64]


class ShardFile:
    """A mapped file."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self._ids = tensors["ids"]
        self._learned = tensors["learned"]
        self._offsets = tensors["offsets"]
        self.lines: NDArray[np.int64] = tensors["lines"]
        self.rows = len(self._offsets) - 1
        self.tokens = len(self._ids)

    @classmethod
    def open(cls, path: Path) -> ShardFile:
        """Raises DataUnreadable for a file that is not a shard."""
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > _HEADER_LIMIT:
                    raise ValueError("the header is too long")
                header = json.loads(file.read(size))
            mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
            return cls({name: _tensor(mapped, header, name) for name in _TENSORS})
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataUnreadable(
                f"{path} is not a file of shards: {error}.",
                remedy="Remove its folder; it is made again from the source.",
            ) from None

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self._offsets)

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Ids and loss mask of one row, copied out of the map."""
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        return (
            np.array(self._ids[start:end], dtype=np.int32),
            np.array(self._learned[start:end], dtype=np.bool_),
        )


def _tensor(mapped: NDArray[np.uint8], header: dict[str, Any], name: str) -> NDArray[Any]:
    entry = header[name]
    if entry["dtype"] != _TENSORS[name]:
        raise ValueError(f"{name} is of type {entry['dtype']}")
    start, end = entry["data_offsets"]
    kind: np.dtype[Any] = _DTYPES[_TENSORS[name]]
    return mapped[start:end].view(kind)
