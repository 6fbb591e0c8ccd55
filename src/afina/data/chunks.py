"""A file in parts of some megabytes, each beginning and ending with a line, with exact numbers.

One quick pass over the bytes finds the parts and counts their lines, so that each can be looked at
alone, in another process too, and says the same numbers as a pass over the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from afina.data.lines import LineReader

CHUNK_BYTES: int = 4 << 20
_BLOCK_BYTES: int = 1 << 20


class Chunk(msgspec.Struct, frozen=True):
    """Bytes `start` to `end` of a file; `first_line` is the number of the line at `start`."""

    start: int
    end: int
    first_line: int

    def lines(self, path: Path, max_line_bytes: int, block_bytes: int | None = None) -> LineReader:
        """A reader of the lines of this part."""
        return LineReader(
            path,
            max_line_bytes,
            start=self.start,
            end=self.end,
            first_line=self.first_line,
            block_bytes=block_bytes,
        )


def chunks_of(path: Path, size: int | None = None) -> Iterator[Chunk]:
    """Parts of at least `size` bytes, the last one apart. They end behind a line feed: a file
    whose lines end with a lone CR is one part."""
    size = size or CHUNK_BYTES
    start = at = lines = 0
    first_line = 1
    after_cr = False
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            cut = block.rfind(b"\n") + 1 if at + len(block) - start >= size else 0
            head, tail = block[:cut], block[cut:]
            if cut:
                lines += _line_ends(head, after_cr)
                yield Chunk(start, at + cut, first_line)
                start, first_line, lines = at + cut, first_line + lines, 0
                after_cr = False
            lines += _line_ends(tail, after_cr)
            after_cr = tail.endswith(b"\r") if tail else False
            at += len(block)
    if at > start or start == 0:
        yield Chunk(start, at, first_line)


def _line_ends(block: bytes, after_cr: bool) -> int:
    """Line ends in a block; CRLF is one, also where a CR ended the block before."""
    ends = block.count(b"\n") - (after_cr and block.startswith(b"\n"))
    returns = block.count(b"\r")
    return ends + returns - block.count(b"\r\n") if returns else ends
