"""How a step lies in memory: groups of rows that are computed alike, one after the other.

A group is `rows` sequences with `width` new positions each (1 for decoding, a chunk's length
otherwise) over `context` cached positions. Rows, widths, contexts and the step as a whole are
rounded up to few sizes, because oneDNN builds a kernel for each new shape. What is added is
padding: it writes to a block that nobody reads. Plain Python; the runner makes tensors of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from afina.serving.sequences import Chunk, Plan, Sequence

_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_WIDTH_STEP = 16


def rounded_rows(rows: int) -> int:
    """The number of rows that a group of `rows` is padded to."""
    for size in _ROWS:
        if rows <= size:
            return size
    return -(-rows // 64) * 64


def rounded_tokens(tokens: int) -> int:
    """The number of positions that a step of `tokens` is padded to."""
    if tokens <= 32:
        return rounded_rows(tokens)
    step = 16 if tokens <= 128 else 64
    return -(-tokens // step) * step


def rounded_context(positions: int, block_tokens: int) -> int:
    """The number of cached positions that a group reads, whole blocks."""
    step = 32 if positions <= 256 else 64 if positions <= 512 else 256
    step = max(step, block_tokens)
    step = -(-step // block_tokens) * block_tokens
    return -(-positions // step) * step


@dataclass
class Row:
    """A sequence's part in a step: positions `start` to `start + length`."""

    sequence: Sequence
    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass
class Group:
    """Rows of one width and one context, padded to `rows`; they begin at position `offset` of
    the step."""

    members: list[Row]
    rows: int
    width: int
    context: int
    offset: int = 0

    @property
    def positions(self) -> int:
        return self.rows * self.width


@dataclass
class Layout:
    """A step: its groups and its whole length, padding included."""

    groups: list[Group] = field(default_factory=list)
    tokens: int = 0

    def row_of(self, group: Group, member: int) -> int:
        """Where the last real position of a group's member lies in the step."""
        return group.offset + member * group.width + group.members[member].length - 1


def lay_out(plan: Plan, block_tokens: int, smallest_rows: int = 1) -> Layout:
    """The layout of a plan's decoding rows and chunks. `smallest_rows` pads tiny steps."""
    layout = Layout()
    decodes = [Row(s, s.computed, 1) for s in plan.decodes]
    chunks = [_row(chunk) for chunk in plan.chunks]
    for rows in _alike(decodes):
        layout.groups.append(_group(rows, 1, block_tokens))
    for rows in _alike(chunks):
        width = max(row.length for row in rows)
        width = -(-width // _WIDTH_STEP) * _WIDTH_STEP
        layout.groups.append(_group(rows, width, block_tokens))
    for group in layout.groups:
        group.offset = layout.tokens
        layout.tokens += group.positions
    layout.tokens = max(rounded_tokens(layout.tokens), smallest_rows)
    return layout


def _row(chunk: Chunk) -> Row:
    return Row(chunk.sequence, chunk.start, chunk.length)


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows in groups of like cost: contexts within a factor of two, widths within a step."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        context_class = max(row.stop - 1, 127).bit_length()
        width_class = -(-row.length // _WIDTH_STEP)
        groups.setdefault((width_class, context_class), []).append(row)
    return [groups[key] for key in sorted(groups)]


def _group(rows: list[Row], width: int, block_tokens: int) -> Group:
    context = rounded_context(max(row.stop for row in rows), block_tokens)
    count = rounded_rows(len(rows)) if width == 1 else len(rows)
    return Group(rows, count, width, context)
