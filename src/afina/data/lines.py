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


class LineGroup(msgspec.Struct, frozen=True):
    """Lines behind each other, parted by LF, without the last one's end. `text` is None for a
    single line that is longer than the cap; a line inside a text may be so too."""

    first: int
    text: bytes | None
    size: int


class LineReader:
    """Iterates over the lines of a file, or over those of a part that begins and ends with a line
    (see `afina.data.chunks`); `bytes_read` tells how far it is."""

    def __init__(
        self,
        path: Path,
        max_line_bytes: int,
        *,
        start: int = 0,
        end: int | None = None,
        first_line: int = 1,
        block_bytes: int | None = None,
    ) -> None:
        self._path = path
        self._cap = max_line_bytes
        self._start = start
        self._end = end
        self._first_line = first_line
        self._block_bytes = block_bytes or _BLOCK_BYTES
        self.bytes_read = 0
        self.bytes_total = path.stat().st_size

    def __iter__(self) -> Iterator[SourceLine]:
        for group in self.groups():
            yield from self.lines_of(group)

    def lines_of(self, group: LineGroup) -> Iterator[SourceLine]:
        """The group's lines one by one."""
        if group.text is None:
            yield SourceLine(group.first, None, group.size)
            return
        for number, raw in enumerate(group.text.split(b"\n"), group.first):
            size = len(raw)
            yield SourceLine(number, raw if size <= self._cap else None, size)

    def groups(self) -> Iterator[LineGroup]:
        """All lines, as many at a time as a block of the file holds."""
        number = self._first_line
        carried: list[bytes] = []
        size = 0
        with self._path.open("rb", buffering=0) as file:
            for block in self._blocks(file):
                cut = block.rfind(b"\n")
                head, tail = (block[:cut], block[cut + 1 :]) if cut >= 0 else (b"", block)
                if cut >= 0 and size > self._cap:
                    first, found, head = head.partition(b"\n")
                    yield LineGroup(number, None, size + len(first))
                    number, size = number + 1, 0
                    if found:
                        yield LineGroup(number, head, len(head))
                        number += head.count(b"\n") + 1
                elif cut >= 0:
                    text = b"".join((*carried, head)) if size else head
                    yield LineGroup(number, text, len(text))
                    number += text.count(b"\n") + 1
                    carried, size = [], 0
                size += len(tail)
                if size <= self._cap:
                    carried.append(tail)
                else:
                    carried.clear()
        if size > self._cap:
            yield LineGroup(number, None, size)
        elif size:
            yield LineGroup(number, b"".join(carried), size)

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        """Blocks of the file in which LF alone ends a line."""
        held = b""
        file.seek(self._start)
        left = self._end - self._start if self._end is not None else None
        while block := file.read(
            self._block_bytes if left is None else min(left, self._block_bytes)
        ):
            if left is not None:
                left -= len(block)
            if self._start == self.bytes_read == 0 and block.startswith(_BOM):
                self.bytes_read = len(_BOM)
                block = block[len(_BOM) :]
            self.bytes_read += len(block)
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""
            block = block[: len(block) - len(held)] if held else block
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield block
        if held:
            yield b"\n"
