"""Physical lines of a file, in memory that does not grow with the file or its longest line.

Lines end with LF, CRLF or a lone CR, as editors count them; U+2028 and its like are characters,
not line ends. A byte order mark of UTF-8 at the beginning is not part of the first line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

_BLOCK_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


class SourceLine(msgspec.Struct, frozen=True):
    """A line without its end. `raw` is None where it is longer than the cap."""

    number: int
    raw: bytes | None
    size: int

    @property
    def is_blank(self) -> bool:
        return self.raw is not None and not self.raw.strip()


class LineReader:
    """Iterates over the lines of a file; `bytes_read` tells how far it is."""

    def __init__(self, path: Path, max_line_bytes: int) -> None:
        self._path = path
        self._cap = max_line_bytes
        self.bytes_read = 0
        self.bytes_total = path.stat().st_size

    def __iter__(self) -> Iterator[SourceLine]:
        number = 0
        carried: list[bytes] = []
        size = 0
        with self._path.open("rb") as file:
            for block in self._blocks(file):
                pieces = block.split(b"\n")
                for piece in pieces[:-1]:
                    number += 1
                    yield self._line(number, carried, piece, size)
                    if size:
                        carried, size = [], 0
                size += len(pieces[-1])
                if size <= self._cap:
                    carried.append(pieces[-1])
                else:
                    carried.clear()
        if size:
            yield self._line(number + 1, carried, b"", size)

    def _line(self, number: int, carried: list[bytes], piece: bytes, size: int) -> SourceLine:
        size += len(piece)
        if size > self._cap:
            return SourceLine(number, None, size)
        return SourceLine(number, b"".join((*carried, piece)) if carried else piece, size)

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """Blocks of the file in which LF alone ends a line."""
        held = b""
        while block := file.read(_BLOCK_BYTES):
            if self.bytes_read == 0 and block.startswith(_BOM):
                self.bytes_read = len(_BOM)
                block = block[len(_BOM) :]
            self.bytes_read += len(block)
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""
            block = block[: len(block) - len(held)]
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield block
        if held:
            yield b"\n"
